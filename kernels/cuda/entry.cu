/* How the ops of a context are entered: whatever thread calls, the context's device is made its own first. */
#include "kernels/cuda/cuda_ctx.cuh"

#define OP(name, kind, bits, args, ...)            \
    static int name##_entry(__VA_ARGS__)           \
    {                                              \
        struct cuda_ctx *c = ctx_of(k);            \
        int r = cuda_enter(c);                     \
        return r < 0 ? r : c->launchers.name args; \
    }
#include "kernels/op_list.h"

static int matrix_new_entry(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                            struct kern_matrix **ret, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : c->launchers.matrix_new(k, kind, parts, n_parts, cols, ret, err);
}

static int mamba_new_entry(struct kern_ctx *k, const struct mamba_parts *parts, struct kern_mamba **ret, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : c->launchers.mamba_new(k, parts, ret, err);
}

static int place_layers_entry(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                              const struct dev_i32 *reserved, int n_append, const struct kern_place *to, size_t stride)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.place_layers(k, s, layers, n, base, reserved, n_append, to, stride);
}

static int route_mlp_place_entry(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                                 const struct kern_step *s, int layer, bool keep_all, const struct dev_i32 *base,
                                 const struct dev_i32 *reserved, const struct kern_place *place)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.route_mlp_place(k, to, p, x, s, layer, keep_all, base, reserved, place);
}

static int rope_attention_entry(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                const struct dev_f32 *cos, const struct dev_f32 *sin, const struct kern_step *s, int layer,
                                const struct kern_place *p, const struct dev_i32 *base, float scale)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.rope_attention(k, hs, out, qkv, cos, sin, s, layer, p, base, scale);
}

static int matmul_normed_entry(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct kern_norm *norm,
                               const struct kern_matrix *w, struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_normed(k, y, col, ldy, norm, w, n);
}

static int matmul_f32_normed_entry(struct kern_ctx *k, struct dev_f32 *y, const struct kern_norm *norm, const struct kern_matrix *w,
                                   struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_f32_normed(k, y, norm, w, n);
}

static int matmul_swiglu_normed_entry(struct kern_ctx *k, struct dev_act *y, const struct kern_norm *norm, const struct kern_matrix *w,
                                      struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_swiglu_normed(k, y, norm, w, n);
}

static int matmul_with_bypass_entry(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                    const struct dev_act *xn, const struct kern_matrix *w_qk, const struct kern_matrix *w_v, int d,
                                    struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_with_bypass(k, hs, out, qkv, xn, w_qk, w_v, d, n);
}

static int matmul_with_bypass_normed_entry(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                           const struct kern_norm *norm, const struct kern_matrix *w_qk, const struct kern_matrix *w_v,
                                           struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_with_bypass_normed(k, hs, out, qkv, norm, w_qk, w_v, n);
}

static int matmul_rope_store_entry(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_act *xn,
                                   const struct kern_matrix *w, int d, const struct dev_f32 *cos, const struct dev_f32 *sin,
                                   const struct kern_step *s, const struct dev_i32 *slot)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.matmul_rope_store(k, hs, qkv, xn, w, d, cos, sin, s, slot);
}

static int replay_entry(struct kern_ctx *k, const void *key, size_t key_bytes, int (*issue)(void *arg), void *arg)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.replay(k, key, key_bytes, issue, arg);
}

static int beside_entry(struct kern_ctx *k, int (*one)(void *arg), int (*other)(void *arg), void *arg)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : c->launchers.beside(k, one, other, arg);
}

static void fill_launchers(struct kern_ops *o)
{
    matrix_cuda_init(o);
    matmul_cuda_init(o);
    route_cuda_init(o);
    mamba_cuda_init(o);
    select_cuda_init(o);
    heads_cuda_init(o);
    place_cuda_init(o);
    branch_cuda_init(o);
    rope_cuda_init(o);
    attention_cuda_init(o);
    attention_few_cuda_init(o);
    logprobs_cuda_init(o);
    replay_cuda_init(o);
    replicate_cuda_init(o);
    packed_cuda_init(o);
    rmsnorm_cuda_init(o);
}

void entry_cuda_init(struct cuda_ctx *c)
{
    fill_launchers(&c->launchers);
    c->ops = c->launchers; /* what frees weights or tells their size needs no device of their own */
#define OP(name, kind, bits, args, ...) c->ops.name = name##_entry;
#include "kernels/op_list.h"
    c->ops.matrix_new = matrix_new_entry;
    c->ops.mamba_new = mamba_new_entry;
    c->ops.replay = replay_entry;
    c->ops.beside = beside_entry;
    c->ops.place_layers = place_layers_entry;
    c->ops.route_mlp_place = route_mlp_place_entry;
    c->ops.rope_attention = rope_attention_entry;
    c->ops.matmul_normed = matmul_normed_entry;
    c->ops.matmul_f32_normed = matmul_f32_normed_entry;
    c->ops.matmul_swiglu_normed = matmul_swiglu_normed_entry;
    c->ops.matmul_with_bypass = matmul_with_bypass_entry;
    c->ops.matmul_with_bypass_normed = matmul_with_bypass_normed_entry;
    c->ops.matmul_rope_store = matmul_rope_store_entry;
    c->k.ops = &c->ops;
}
