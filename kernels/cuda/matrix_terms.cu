/* Weights of the float32-accurate matmul as f16 terms: all scaled by one power of two that brings the largest to [2^14, 2^15), so that weights stored as bf16
 * or f16 are one term exactly (but for what is below 2^-38 of the largest), and others two terms of 11 bits. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/terms.cuh"

struct term_facts {
    unsigned top; /* bits of the largest |w| */
    unsigned two; /* nonzero: some weight needs two terms */
};

__device__ static float scaled(const float *w, int k, int ld, size_t i, const struct term_facts *f)
{
    float unscale;
    return w[i / k * ld + i % k] * half_scale(__uint_as_float(f->top), &unscale);
}

__global__ static void find_top(const float *w, size_t n, int k, int ld, struct term_facts *f)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    float v = i < n ? fabsf(w[i / k * ld + i % k]) : 0;
    v = warp_max(v);
    if (threadIdx.x % 32 == 0)
        atomicMax(&f->top, __float_as_uint(v));
}

__global__ static void find_terms(const float *w, size_t n, int k, int ld, struct term_facts *f)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    float v = i < n ? scaled(w, k, ld, i, f) : 0;
    if (fabsf(v - __half2float(__float2half_rn(v))) > 0x1p-24f)
        f->two = 1;
}

/* Term t (0 the larger) goes to columns (n_terms-1-t) * term_ld. */
__global__ static void split_weights(const float *w, size_t n, int k, int ld, __half *dst, int n_terms, int term_ld,
                                     const struct term_facts *f)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= n)
        return;
    float rest = scaled(w, k, ld, i, f);
    for (int t = 0; t < n_terms; t++) {
        __half h = __float2half_rn(rest);
        dst[i / k * n_terms * term_ld + (size_t)(n_terms - 1 - t) * term_ld + i % k] = h;
        rest -= __half2float(h);
    }
}

static float unscale_of(unsigned top)
{
    int e = (int)(top >> 23) > 15 ? (int)(top >> 23) : 15;
    unsigned bits = (unsigned)(e - 14) << 23;
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

static int split(struct cuda_ctx *c, struct kern_matrix *w, struct term_facts *dev)
{
    struct kern_ctx *k = &c->k;
    size_t n = (size_t)w->rows * w->k;
    unsigned blocks = (unsigned)((n + 255) / 256);
    struct term_facts f;
    int r = CU(c, cudaMemsetAsync(dev, 0, sizeof(*dev), c->stream));
    if (r < 0)
        return r;
    find_top<<<blocks, 256, 0, c->stream>>>((const float *)w->data, n, w->k, w->ld, dev);
    find_terms<<<blocks, 256, 0, c->stream>>>((const float *)w->data, n, w->k, w->ld, dev);
    r = launched(k, "find_terms");
    if (r >= 0)
        r = k->backend->download(k, &f, to_dev(dev), sizeof(f));
    if (r >= 0)
        r = k->backend->sync(k, NULL);
    if (r < 0)
        return r;
    w->n_terms = f.two ? 2 : 1;
    w->term_unscale = unscale_of(f.top);
    size_t bytes = (size_t)w->rows * w->n_terms * w->term_ld * sizeof(__half);
    w->terms = bytes_of(k->backend->alloc(k, bytes));
    if (!w->terms)
        return ERR_NOMEM;
    w->bytes += bytes;
    r = CU(c, cudaMemsetAsync(w->terms, 0, bytes, c->stream));
    if (r < 0)
        return r;
    split_weights<<<blocks, 256, 0, c->stream>>>((const float *)w->data, n, w->k, w->ld, (__half *)w->terms, w->n_terms, w->term_ld, dev);
    return launched(k, "split_weights");
}

int matrix_terms_f16(struct cuda_ctx *c, struct kern_matrix *w)
{
    struct term_facts *dev = (struct term_facts *)bytes_of(c->k.backend->alloc(&c->k, sizeof(*dev)));
    if (!dev)
        return ERR_NOMEM;
    w->term_ld = (w->k + 63) / 64 * 64;
    int r = split(c, w, dev);
    c->k.backend->free(&c->k, to_dev(dev));
    return r;
}
