/* Rotary embedding and the store of K and V: scalar form.
 *
 * The op names two row sets: those whose q is rotated, and those that own a slot. Rows are walked once for each. */
#include "kernels/cpu/ops.h"

struct rope {
    const struct kern_heads *hs;
    void *qkv, *kv;
    enum dtype type;
    const float *cos, *sin;
    const int *pos, *slot;
};

/* dst may be src. */
static inline void rotate(void *dst, const void *src, enum dtype type, const float *cos, const float *sin, int hd)
{
    int half = hd / 2;
    for (int j = 0; j < half; j++) {
        float a = act_get(src, type, j), b = act_get(src, type, j + half);
        act_put(dst, type, j, a * cos[j] - b * sin[j]);
        act_put(dst, type, j + half, b * cos[j] + a * sin[j]);
    }
}

static void rotate_heads(const struct rope *a, void *dst, const void *src, int r, int n_heads)
{
    int hd = a->hs->hd;
    const float *cos = a->cos + (size_t)a->pos[r] * (hd / 2), *sin = a->sin + (size_t)a->pos[r] * (hd / 2);
    for (int i = 0; i < n_heads; i++) {
        size_t at = (size_t)i * hd;
        if (a->type == DTYPE_F32)
            rotate(act_at_mut(dst, DTYPE_F32, at), act_at(src, DTYPE_F32, at), DTYPE_F32, cos, sin, hd);
        else
            rotate(act_at_mut(dst, DTYPE_BF16, at), act_at(src, DTYPE_BF16, at), DTYPE_BF16, cos, sin, hd);
    }
}

static void query_row(void *arg, int r)
{
    const struct rope *a = arg;
    void *q = act_at_mut(a->qkv, a->type, (size_t)r * (a->hs->h + 2 * a->hs->hk) * a->hs->hd);
    rotate_heads(a, q, q, r, a->hs->h);
}

static void store_row(void *arg, int r)
{
    const struct rope *a = arg;
    if (a->slot[r] < 0)
        return;
    size_t h = a->hs->h, hk = a->hs->hk, hd = a->hs->hd;
    const void *key = act_at(a->qkv, a->type, r * (h + 2 * hk) * hd + h * hd);
    void *place = act_at_mut(a->kv, a->type, a->slot[r] * 2 * hk * hd);
    rotate_heads(a, place, key, r, (int)hk);
    memcpy(act_at_mut(place, a->type, hk * hd), act_at(key, a->type, hk * hd), hk * hd * dtype_size(a->type));
}

static int rope_store_c(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_f32 *cos,
                        const struct dev_f32 *sin, const struct kern_step *s, const struct dev_i32 *slot, struct rows q_rows)
{
    struct rope a = {hs, act_of(qkv), act_of(hs->kv), k->act, f32_of(cos), f32_of(sin), i32_of(s->pos), i32_of(slot)};
    cpu_for_rows(k, q_rows, 4 * hs->h * hs->hd, query_row, &a);
    cpu_for_rows(k, s->all, 6 * hs->hk * hs->hd, store_row, &a);
    return 0;
}

void CPU_NAME(rope_init)(struct kern_ops *o)
{
    o->rope_store = rope_store_c;
}
