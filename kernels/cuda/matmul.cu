/* The matmul slots: chooses the kernel by what is fixed for a matrix and its buffers, and gathers the rows of a row set. */
#include "kernels/cuda/matmul.cuh"

/* dst[i] = src[idx[i]], rows of `chunks` 16-byte pieces. */
__global__ static void gather_rows(uint4 *dst, const uint4 *src, int chunks, size_t ld_chunks, struct rows n)
{
    chain_enter();
    const int m = rows_count(n), *idx = i32_of(n.idx);
    for (int i = blockIdx.x * blockDim.y + threadIdx.y; i < m; i += gridDim.x * blockDim.y)
        for (int j = threadIdx.x; j < chunks; j += 32)
            dst[(size_t)i * chunks + j] = src[(size_t)idx[i] * ld_chunks + j];
}

int matmul_gather(struct cuda_ctx *c, struct matmul_in *in, int k, size_t size, struct rows n)
{
    int chunks = (int)(((size_t)k * size + 15) / 16);
    void *dst = cuda_scratch(c, SCRATCH_GATHER, (size_t)n.n_max * chunks * 16);
    if (!dst)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    int blocks = div_up(n.n_max, 8) < 8 * c->n_sm ? div_up(n.n_max, 8) : 8 * c->n_sm;
    chain_launch(c, gather_rows, blocks, dim3(32, 8), 0, (uint4 *)dst, (const uint4 *)in->x, chunks, in->ldx * size / 16, n);
    in->x = dst;
    in->ldx = (int)(chunks * 16 / size);
    return launched(&c->k, "gather_rows");
}

static void finish_out(struct kern_ctx *k, const struct kern_matrix *w, struct matmul_out *out)
{
    size_t y_size = out->end == END_F32 || out->end == END_RESIDUAL || out->end == END_BLEND ? 4 : dtype_size(k->act);
    out->bias = w->bias;
    out->wide =
        (uintptr_t)out->y % 16 == 0 && out->ldy * y_size % 16 == 0 && (uintptr_t)out->fan % 16 == 0 && (!out->fan || out->hd % 8 == 0);
}

/* 1: done; 0: not of this shape. second: of the same rows and the same k, or NULL. */
static int run_normed(struct kern_ctx *k, const struct kern_norm *norm, const struct kern_matrix *w, struct matmul_out out,
                      struct matmul_second *second)
{
    struct cuda_ctx *c = ctx_of(k);
    struct matmul_norm from = {f32_of(norm->x), f32_of(norm->w), i32_of(norm->idx), norm->eps};
    if (k->act == DTYPE_F32 || c->level < CUDA_WGMMA || out.rows.n_max > NORMED_ROWS_MAX || w->k > NORMED_K_MAX || w->k % 8)
        return 0;
    if ((uintptr_t)from.x % 16 || (uintptr_t)from.w % 16)
        return 0;
    if (out.rows.n_max == 0)
        return 1;
    finish_out(k, w, &out);
    if (second)
        finish_out(k, second->w, &second->out);
    int r = matmul_normed_sm90(c, &from, w, &out, second);
    return r < 0 ? r : 1;
}

/* Two products of the same rows in one launch: 1: done; 0: not of this shape. */
static int run_two(struct kern_ctx *k, struct matmul_in in, const struct kern_matrix *w, struct matmul_out out, struct matmul_second second)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = 0;
    if (k->act == DTYPE_F32 || c->level < CUDA_WGMMA || out.rows.n_max > SECOND_ROWS_MAX || !tensor_map_fits(in.x, in.ldx * 2))
        return 0;
    if (out.rows.n_max == 0)
        return 1;
    finish_out(k, w, &out);
    finish_out(k, second.w, &second.out);
    if (out.rows.idx)
        r = matmul_gather(c, &in, w->k, 2, out.rows);
    if (r >= 0)
        r = matmul_few_sm90(c, &in, w, &out, &second);
    return r < 0 ? r : 1;
}

static int run(struct kern_ctx *k, struct matmul_in in, const struct kern_matrix *w, struct matmul_out out)
{
    struct cuda_ctx *c = ctx_of(k);
    bool accurate = w->kind == MATRIX_ACCURATE;
    size_t size = accurate ? 4 : dtype_size(k->act);
    if (out.rows.n_max == 0)
        return 0;
    finish_out(k, w, &out);
    if (c->high)
        return c->level == CUDA_MMA ? matmul_high_mma(c, &in, w, &out) : matmul_high_sm90(c, &in, w, &out);
    if (k->act == DTYPE_F32)
        return matmul_f32(c, &in, w, &out);
    if (c->level == CUDA_SIMT || !tensor_map_fits(in.x, in.ldx * size))
        return matmul_simt(c, &in, w, &out);
    if (c->level == CUDA_MMA)
        return accurate ? matmul_accurate_mma(c, &in, w, &out) : matmul_mma(c, &in, w, &out);
    if (!accurate && out.end != END_BLEND && out.rows.n_max <= OWN_ROWS_MAX && out.rows.n_max * w->k <= OWN_ELEMENTS_MAX)
        return matmul_own_sm90(c, &in, w, &out);
    if (out.rows.idx && out.end != END_BLEND) {
        int r = matmul_gather(c, &in, w->k, size, out.rows);
        if (r < 0)
            return r;
    }
    return accurate ? matmul_accurate_sm90(c, &in, w, &out) : matmul_sm90(c, &in, w, &out);
}

/* Where column `col` of the first row is. */
static void *act_column(struct kern_ctx *k, const struct dev_act *y, int col)
{
    return (char *)act_of(y) + (size_t)col * dtype_size(k->act);
}

static int matmul_cuda(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct dev_act *x, int ldx,
                       const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {k->act == DTYPE_F32 ? END_F32 : END_ACT, act_column(k, y, col), ldy, w->n};
    out.rows = n;
    return run(k, {act_of(x), ldx}, w, out);
}

static int matmul_f32_cuda(struct kern_ctx *k, struct dev_f32 *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {END_F32, f32_of(y), w->n, w->n};
    out.rows = n;
    return run(k, {act_of(x), w->k}, w, out);
}

static int matmul_residual_cuda(struct kern_ctx *k, struct dev_f32 *x, const struct dev_act *a, int lda, const struct kern_matrix *w,
                                const struct dev_f32 *gate, struct rows n)
{
    struct matmul_out out = {END_RESIDUAL, f32_of(x), w->n, w->n};
    out.gate = f32_of(gate);
    out.rows = n;
    return run(k, {act_of(a), lda}, w, out);
}

/* In one kernel where rows of x and y come in fours, which is told by the shape, so that a model has the bits of one way. */
static int matmul_blend_cuda(struct kern_ctx *k, struct dev_f32 *x, struct dev_f32 *y, const struct dev_act *a, int lda,
                             const struct kern_matrix *w, const struct dev_f32 *gate, enum blend_mode mode, struct rows n)
{
    bool fours = w->n % 4 == 0 && (uintptr_t)x % 16 == 0 && (uintptr_t)y % 16 == 0;
    if (k->act == DTYPE_F32 || ctx_of(k)->level != CUDA_WGMMA || !fours || !tensor_map_fits(act_of(a), lda * dtype_size(k->act))) {
        int r = matmul_residual_cuda(k, y, a, lda, w, NULL, {NULL, n.n_dev, n.n_max});
        return r < 0 ? r : k->ops->blend(k, x, y, gate, mode, w->n, n);
    }
    struct matmul_out out = {END_BLEND, f32_of(x), w->n, w->n};
    out.gate = f32_of(gate);
    out.rows = n;
    out.packed = f32_of(y);
    out.mode = mode;
    return run(k, {act_of(a), lda}, w, out);
}

static int matmul_swiglu_cuda(struct kern_ctx *k, struct dev_act *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {END_SWIGLU, act_of(y), w->n, w->n};
    out.rows = n;
    return run(k, {act_of(x), w->k}, w, out);
}

static int matmul_accurate_cuda(struct kern_ctx *k, struct dev_f32 *y, const struct dev_f32 *x, const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {END_F32, f32_of(y), w->n, w->n};
    out.rows = n;
    return run(k, {f32_of(x), w->k}, w, out);
}

/* q and k of a row of qkv; v, with its copies. */
static struct matmul_out to_qk(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct kern_matrix *w,
                               struct rows n)
{
    struct matmul_out to = {k->act == DTYPE_F32 ? END_F32 : END_ACT, act_of(qkv), (hs->h + 2 * hs->hk) * hs->hd, w->n};
    to.rows = n;
    return to;
}

static struct matmul_out to_bypass(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                   const struct kern_matrix *w, struct rows n)
{
    int qk = (hs->h + hs->hk) * hs->hd;
    struct matmul_out to = {k->act == DTYPE_F32 ? END_F32 : END_ACT, act_column(k, qkv, qk), qk + hs->hk * hs->hd, w->n};
    to.fan = act_of(out);
    to.fan_group = hs->h / hs->hk;
    to.hd = hs->hd;
    to.rows = n;
    return to;
}

static int matmul_bypass_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                              const struct dev_act *xn, const struct kern_matrix *w, int d, struct rows n)
{
    return run(k, {act_of(xn), d}, w, to_bypass(k, hs, out, qkv, w, n));
}

static int matmul_with_bypass_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                   const struct dev_act *xn, const struct kern_matrix *w_qk, const struct kern_matrix *w_v, int d,
                                   struct rows n)
{
    return run_two(k, {act_of(xn), d}, w_qk, to_qk(k, hs, qkv, w_qk, n), {w_v, to_bypass(k, hs, out, qkv, w_v, n)});
}

static int matmul_with_bypass_normed_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                                          const struct kern_norm *norm, const struct kern_matrix *w_qk, const struct kern_matrix *w_v,
                                          struct rows n)
{
    struct matmul_second second = {w_v, to_bypass(k, hs, out, qkv, w_v, n)};
    return run_normed(k, norm, w_qk, to_qk(k, hs, qkv, w_qk, n), &second);
}

/* The kernel of many rows holds whole heads of these sizes. */
static int matmul_rope_store_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_act *xn,
                                  const struct kern_matrix *w, int d, const struct dev_f32 *cos, const struct dev_f32 *sin,
                                  const struct kern_step *s, const struct dev_i32 *slot)
{
    struct matmul_out out = {END_ACT, act_of(qkv), (hs->h + 2 * hs->hk) * hs->hd, w->n};
    if (k->act == DTYPE_F32 || ctx_of(k)->level < CUDA_WGMMA || s->all.n_max <= FEW_ROWS_MAX || (hs->hd != 64 && hs->hd != 128) ||
        !tensor_map_fits(act_of(xn), (size_t)d * 2))
        return 0;
    out.rows = s->all;
    out.hd = hs->hd;
    out.rope = {f32_of(cos), f32_of(sin), i32_of(s->pos), i32_of(slot), act_of(hs->kv), hs->h, hs->hk};
    int r = run(k, {act_of(xn), d}, w, out);
    return r < 0 ? r : 1;
}

static int matmul_normed_cuda(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct kern_norm *norm,
                              const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {END_ACT, act_column(k, y, col), ldy, w->n};
    out.rows = n;
    return run_normed(k, norm, w, out, NULL);
}

static int matmul_f32_normed_cuda(struct kern_ctx *k, struct dev_f32 *y, const struct kern_norm *norm, const struct kern_matrix *w,
                                  struct rows n)
{
    struct matmul_out out = {END_F32, f32_of(y), w->n, w->n};
    out.rows = n;
    return run_normed(k, norm, w, out, NULL);
}

static int matmul_swiglu_normed_cuda(struct kern_ctx *k, struct dev_act *y, const struct kern_norm *norm, const struct kern_matrix *w,
                                     struct rows n)
{
    struct matmul_out out = {END_SWIGLU, act_of(y), w->n, w->n};
    out.rows = n;
    return run_normed(k, norm, w, out, NULL);
}

void matmul_cuda_init(struct kern_ops *o)
{
    o->matmul = matmul_cuda;
    o->matmul_f32 = matmul_f32_cuda;
    o->matmul_bypass = matmul_bypass_cuda;
    o->matmul_residual = matmul_residual_cuda;
    o->matmul_blend = matmul_blend_cuda;
    o->matmul_swiglu = matmul_swiglu_cuda;
    o->matmul_accurate = matmul_accurate_cuda;
    o->matmul_normed = matmul_normed_cuda;
    o->matmul_f32_normed = matmul_f32_normed_cuda;
    o->matmul_swiglu_normed = matmul_swiglu_normed_cuda;
    o->matmul_with_bypass = matmul_with_bypass_cuda;
    o->matmul_with_bypass_normed = matmul_with_bypass_normed_cuda;
    o->matmul_rope_store = matmul_rope_store_cuda;
}
