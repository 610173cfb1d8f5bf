/* RMS norm of rows and of heads, and the cast that stands for it where a layer has none: scalar forms. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/ops.h"

struct rmsnorm {
    void *y;
    float *z;
    enum dtype type;
    const float *x, *w;
    int d;
    float eps;
};

struct gather_norm {
    struct rmsnorm norm;
    float *dst;
    struct rows from;
};

static inline void norm_row(void *y, enum dtype type, float *z, const float *x, const float *w, int d, float eps)
{
    float scale = rms_scale_c(x, d, eps);
    for (int i = 0; i < d; i++)
        act_put(y, type, i, x[i] * scale * w[i]);
    for (int i = 0; z && i < d; i++) /* z may be x */
        z[i] = x[i] * scale * w[i];
}

static void row(void *arg, int r)
{
    const struct rmsnorm *a = arg;
    const float *x = a->x + (size_t)r * a->d;
    void *y = act_at_mut(a->y, a->type, (size_t)r * a->d);
    float *z = a->z ? a->z + (size_t)r * a->d : NULL;
    if (a->type == DTYPE_F32)
        norm_row(y, DTYPE_F32, z, x, a->w, a->d, a->eps);
    else
        norm_row(y, DTYPE_BF16, z, x, a->w, a->d, a->eps);
}

static int rmsnorm_c(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *z, const struct dev_f32 *x, const struct dev_f32 *w,
                     struct rows n, int d, float eps)
{
    struct rmsnorm a = {act_of(y), f32_of(z), k->act, f32_of(x), f32_of(w), d, eps};
    cpu_for_rows(k, n, 2 * d, row, &a);
    return 0;
}

/* Row i of the set, counted from 0. */
static void gathered_row(void *arg, int i)
{
    const struct gather_norm *a = arg;
    size_t to = (size_t)i * a->norm.d;
    memcpy(a->dst + to, a->norm.x + (size_t)rows_at(&a->from, i) * a->norm.d, sizeof(float) * a->norm.d);
    struct rmsnorm of = a->norm;
    of.x = a->dst;
    row(&of, i);
}

static int gather_norm_c(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *dst, const struct dev_f32 *x, const struct dev_f32 *w,
                         struct rows n, int d, float eps)
{
    struct gather_norm a = {{act_of(y), NULL, k->act, f32_of(x), f32_of(w), d, eps}, f32_of(dst), n};
    cpu_for_rows(k, (struct rows){NULL, NULL, rows_count(n)}, 3 * d, gathered_row, &a);
    return 0;
}

static void cast_row(void *arg, int r)
{
    const struct rmsnorm *a = arg;
    size_t at = (size_t)r * a->d;
    if (a->type == DTYPE_F32)
        memcpy((float *)a->y + at, a->x + at, sizeof(float) * a->d);
    else
        for (int i = 0; i < a->d; i++)
            act_put(a->y, DTYPE_BF16, at + i, a->x[at + i]);
}

static int cast_rows_c(struct kern_ctx *k, struct dev_act *y, const struct dev_f32 *x, struct rows n, int d)
{
    struct rmsnorm a = {.y = act_of(y), .type = k->act, .x = f32_of(x), .d = d};
    cpu_for_rows(k, n, d, cast_row, &a);
    return 0;
}

struct head_norm {
    void *x;
    enum dtype type;
    int ldx, heads, hp, hd;
    const float *w;
    float eps;
};

static inline void norm_head(void *x, enum dtype type, const float *w, int hp, int hd, float eps)
{
    struct lanes sum = {0};
    for (int i = 0; i < hp; i += SUM_LANES) {
        float v[SUM_LANES];
        int n = hp - i < SUM_LANES ? hp - i : SUM_LANES;
        for (int j = 0; j < n; j++)
            v[j] = act_get(x, type, i + j);
        lanes_add_squares(&sum, lanes_load(v, n));
    }
    float scale = 1.0f / sqrtf(lanes_sum(&sum) / (float)hd + eps);
    for (int i = 0; i < hp; i++)
        act_put(x, type, i, act_get(x, type, i) * scale * w[i]);
}

static void head_norm_row(void *arg, int r)
{
    const struct head_norm *a = arg;
    for (int i = 0; i < a->heads; i++) {
        void *x = act_at_mut(a->x, a->type, (size_t)r * a->ldx + (size_t)i * a->hp);
        if (a->type == DTYPE_F32)
            norm_head(x, DTYPE_F32, a->w, a->hp, a->hd, a->eps);
        else
            norm_head(x, DTYPE_BF16, a->w, a->hp, a->hd, a->eps);
    }
}

static int head_norm_c(struct kern_ctx *k, struct dev_act *x, int col, int ldx, int heads, int hp, int hd, const struct dev_f32 *w,
                       struct rows n, float eps)
{
    struct head_norm a = {act_at_mut(act_of(x), k->act, col), k->act, ldx, heads, hp, hd, f32_of(w), eps};
    cpu_for_rows(k, n, 4 * heads * hp, head_norm_row, &a);
    return 0;
}

void CPU_NAME(rmsnorm_init)(struct kern_ops *o)
{
    o->rmsnorm = rmsnorm_c;
    o->gather_norm = gather_norm_c;
    o->cast_rows = cast_rows_c;
    o->head_norm = head_norm_c;
}
