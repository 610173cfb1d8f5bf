/* Gathered rows, whole-layer gates and the bypass: scalar forms. */
#include "kernels/cpu/ops.h"

struct blend {
    float *x;
    const float *y, *gate;
    int d;
    enum blend_mode mode;
    struct rows to;
};

struct gather {
    float *dst;
    const float *src;
    int d;
    struct rows from;
};

static void gather_row(void *arg, int i)
{
    const struct gather *a = arg;
    memcpy(a->dst + (size_t)i * a->d, a->src + (size_t)rows_at(&a->from, i) * a->d, sizeof(float) * a->d);
}

static int gather_rows_c(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n)
{
    struct gather a = {f32_of(dst), f32_of(src), d, n};
    cpu_for_rows(k, (struct rows){NULL, NULL, rows_count(n)}, d, gather_row, &a);
    return 0;
}

static void blend_row(void *arg, int i)
{
    const struct blend *a = arg;
    int r = rows_at(&a->to, i);
    float *x = a->x + (size_t)r * a->d, gate = a->gate[r];
    const float *y = a->y + (size_t)i * a->d;
    if (a->mode == BLEND_ADD)
        for (int j = 0; j < a->d; j++)
            x[j] = x[j] + gate * y[j];
    else
        for (int j = 0; j < a->d; j++)
            x[j] = x[j] + gate * (y[j] - x[j]);
}

static int blend_c(struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *y, const struct dev_f32 *gate, enum blend_mode mode, int d,
                   struct rows n)
{
    struct blend a = {f32_of(x), f32_of(y), f32_of(gate), d, mode, n};
    cpu_for_rows(k, (struct rows){NULL, NULL, rows_count(n)}, d, blend_row, &a);
    return 0;
}

struct bypass {
    const struct kern_heads *hs;
    void *out;
    const void *qkv;
    enum dtype type;
};

static void bypass_row(void *arg, int r)
{
    const struct bypass *a = arg;
    int h = a->hs->h, hk = a->hs->hk, hd = a->hs->hd, group = h / hk;
    const void *v = act_at(a->qkv, a->type, (size_t)r * (h + 2 * hk) * hd + (size_t)(h + hk) * hd);
    for (int i = 0; i < h; i++)
        memcpy(act_at_mut(a->out, a->type, ((size_t)r * h + i) * hd), act_at(v, a->type, (size_t)(i / group) * hd),
               hd * dtype_size(a->type));
}

static int spread_values_c(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv, struct rows n)
{
    struct bypass a = {hs, act_of(out), act_of(qkv), k->act};
    cpu_for_rows(k, n, hs->h * hs->hd, bypass_row, &a);
    return 0;
}

static int matmul_bypass_c(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                           const struct dev_act *xn, const struct kern_matrix *w, int d, struct rows n)
{
    int qk = (hs->h + hs->hk) * hs->hd, r = k->ops->matmul(k, qkv, qk, qk + hs->hk * hs->hd, xn, d, w, n);
    return r < 0 ? r : spread_values_c(k, hs, out, qkv, n);
}

void CPU_NAME(gates_init)(struct kern_ops *o)
{
    o->gather_rows = gather_rows_c;
    o->blend = blend_c;
    o->matmul_bypass = matmul_bypass_c;
    o->spread_values = spread_values_c;
}
