/* Rows of float32 as two f16 terms each, the operands of the products of --matmul-precision high (high.cuh): a row is scaled by the power of two that brings its
 * largest element to [2^14, 2^15), so nothing overflows, and what is left of an element is below 2^-22 of it, or 2^-39 of the row's largest. A row with a value that
 * is not finite has one in its terms, and so in all that is made of it. */
#include "kernels/cuda/high.cuh"
#include "kernels/cuda/terms.cuh"

enum { WARPS = 8 };

struct split_args {
    const float *x;
    int ldx, k, term_ld;
    bool quads; /* rows start at multiples of 16 bytes */
    struct rows n;
    __half *terms;
    float *unscale;
};

/* Elements i .. i+3 of a row; those beyond k are 0. */
__device__ __forceinline__ float4 load_quad(const float *row, int i, int k, bool quads)
{
    if (quads && i + 4 <= k)
        return *(const float4 *)(row + i);
    return make_float4(i < k ? row[i] : 0, i + 1 < k ? row[i + 1] : 0, i + 2 < k ? row[i + 2] : 0, i + 3 < k ? row[i + 3] : 0);
}

/* A warp a row. */
__global__ static void __launch_bounds__(32 * WARPS) split_row(const __grid_constant__ struct split_args a)
{
    int m = rows_count(a.n), lane = threadIdx.x % 32;
    for (int i = blockIdx.x * WARPS + threadIdx.x / 32; i < m; i += gridDim.x * WARPS) {
        const float *row = a.x + (size_t)row_at(a.n, i) * a.ldx;
        __half *lo = a.terms + (size_t)i * 2 * a.term_ld, *hi = lo + a.term_ld;
        float top = 0, unscale;
#pragma unroll 4
        for (int c = lane * 4; c < a.k; c += 128) {
            float4 v = load_quad(row, c, a.k, a.quads);
            top = fmaxf(top, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
        }
        float scale = half_scale(warp_max(top), &unscale);
#pragma unroll 4
        for (int c = lane * 4; c < a.term_ld; c += 128) {
            float4 v = load_quad(row, c, a.k, a.quads);
            uint2 h, l;
            split_pair(make_float2(v.x * scale, v.y * scale), &h.x, &l.x);
            split_pair(make_float2(v.z * scale, v.w * scale), &h.y, &l.y);
            *(uint2 *)(hi + c) = h;
            *(uint2 *)(lo + c) = l;
        }
        if (lane == 0)
            a.unscale[i] = unscale;
    }
}

static int split(struct cuda_ctx *c, const float *x, int ldx, int k, struct rows n, struct high_terms to)
{
    struct split_args a = {x, ldx, k, high_ld(k), (uintptr_t)x % 16 == 0 && ldx % 4 == 0, n, to.terms, to.unscale};
    int blocks = div_up(n.n_max, WARPS);
    blocks = blocks > 8 * c->n_sm ? 8 * c->n_sm : blocks;
    split_row<<<blocks, 32 * WARPS, 0, c->stream>>>(a);
    return launched(&c->k, "split_row");
}

int high_split(struct cuda_ctx *c, const struct matmul_in *in, int k, struct rows n, struct high_terms *ret)
{
    size_t terms = (size_t)n.n_max * 2 * high_ld(k) * sizeof(__half);
    char *p = (char *)cuda_scratch(c, SCRATCH_SPLIT, terms + (size_t)n.n_max * sizeof(float));
    if (!p)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    *ret = {(__half *)p, (float *)(p + terms)};
    return split(c, (const float *)in->x, in->ldx, k, n, *ret);
}

int high_weights(struct cuda_ctx *c, struct kern_matrix *w)
{
    struct kern_ctx *k = &c->k;
    size_t terms = matrix_terms_bytes(w, 2, high_ld(w->k)), unscale = matrix_unscale_bytes(w);
    w->n_terms = 2;
    w->term_ld = high_ld(w->k);
    w->terms = bytes_of(k->backend->alloc(k, terms));
    w->unscale = (float *)bytes_of(k->backend->alloc(k, unscale));
    if (!w->terms || !w->unscale)
        return ERR_NOMEM;
    int r = CU(c, cudaMemsetAsync(w->unscale, 0, unscale, c->stream));
    struct rows all = {};
    all.n_max = w->rows;
    if (r >= 0)
        r = split(c, (const float *)w->data, w->ld, w->k, all, {(__half *)w->terms, w->unscale});
    w->bytes += terms + unscale;
    if (r < 0 || w->kind == MATRIX_EMBED) /* its rows are read as they are */
        return r;
    r = k->backend->sync(k, NULL);
    k->backend->free(k, to_dev(w->data));
    w->data = NULL;
    w->bytes -= (size_t)w->rows * w->ld * sizeof(float);
    return r;
}
