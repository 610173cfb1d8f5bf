/* Row-wise copies and gates: the bypass of attention, and the whole-layer gate of MoD. A block a row, columns over threads. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 128 };

/* Four elements a thread and turn: hd is a multiple of 8, so a group never crosses a head. */
template <typename T> __global__ void bypass_rows(T *out, const T *qkv, struct rows n, int h, int hk, int hd)
{
    int i = blockIdx.x;
    if (i >= rows_count(n))
        return;
    size_t r = row_at(n, i);
    const T *v = qkv + r * (h + 2 * hk) * hd + (size_t)(h + hk) * hd;
    int group = h / hk;
    for (int j = threadIdx.x * 4; j < h * hd; j += THREADS * 4)
        *(vec4<T> *)(out + r * h * hd + j) = *(const vec4<T> *)(v + (j / hd / group) * hd + j % hd);
}

static int bypass_cuda(struct kern_ctx *k, const struct kern_heads *hs, void *out, const void *qkv, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    return with_type(k->act, [&](auto t) {
        typedef decltype(t) T;
        bypass_rows<T><<<n.n_max, THREADS, 0, ctx_of(k)->stream>>>((T *)out, (const T *)qkv, n, hs->h, hs->hk, hs->hd);
        return launched(k, "bypass");
    });
}

__global__ static void copy_row(float *dst, const float *src, int d, struct rows n)
{
    if (blockIdx.x >= rows_count(n))
        return;
    size_t row = (size_t)row_at(n, blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += THREADS)
        dst[row + j] = src[row + j];
}

static int copy_rows_cuda(struct kern_ctx *k, float *dst, const float *src, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    copy_row<<<n.n_max, THREADS, 0, ctx_of(k)->stream>>>(dst, src, d, n);
    return launched(k, "copy_rows");
}

__global__ static void gather_row(float *dst, const float *src, int d, struct rows n)
{
    if (blockIdx.x >= rows_count(n))
        return;
    size_t to = (size_t)blockIdx.x * d, from = (size_t)row_at(n, blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += THREADS)
        dst[to + j] = src[from + j];
}

static int gather_rows_cuda(struct kern_ctx *k, float *dst, const float *src, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    gather_row<<<n.n_max, THREADS, 0, ctx_of(k)->stream>>>(dst, src, d, n);
    return launched(k, "gather_rows");
}

__global__ static void blend_row(float *x, const float *x0, const float *gate, int d, struct rows n)
{
    if (blockIdx.x >= rows_count(n))
        return;
    int r = row_at(n, blockIdx.x);
    for (int j = threadIdx.x; j < d; j += THREADS) {
        size_t at = (size_t)r * d + j;
        x[at] = x0[at] + gate[r] * x[at];
    }
}

static int blend_cuda(struct kern_ctx *k, float *x, const float *x0, const float *gate, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    blend_row<<<n.n_max, THREADS, 0, ctx_of(k)->stream>>>(x, x0, gate, d, n);
    return launched(k, "blend");
}

void gates_cuda_init(struct kern_ops *o)
{
    o->bypass = bypass_cuda;
    o->copy_rows = copy_rows_cuda;
    o->gather_rows = gather_rows_cuda;
    o->blend = blend_cuda;
}
