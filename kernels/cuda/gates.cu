/* Row-wise copies, and the whole-layer gate of MoD. A block a row, columns over threads. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 128 };

__global__ static void copy_row(float *dst, const float *src, int d, struct rows n)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    size_t row = (size_t)row_at(n, blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += THREADS)
        dst[row + j] = src[row + j];
}

static int copy_rows_cuda(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    chain_launch(ctx_of(k), copy_row, n.n_max, THREADS, 0, f32_of(dst), f32_of(src), d, n);
    return launched(k, "copy_rows");
}

__global__ static void gather_row(float *dst, const float *src, int d, struct rows n)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    size_t to = (size_t)blockIdx.x * d, from = (size_t)row_at(n, blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += THREADS)
        dst[to + j] = src[from + j];
}

static int gather_rows_cuda(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    chain_launch(ctx_of(k), gather_row, n.n_max, THREADS, 0, f32_of(dst), f32_of(src), d, n);
    return launched(k, "gather_rows");
}

template <enum blend_mode MODE> __global__ void blend_row(float *x, const float *x0, const float *gate, int d, struct rows n)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    int r = row_at(n, blockIdx.x);
    for (int j = threadIdx.x; j < d; j += THREADS) {
        size_t at = (size_t)r * d + j;
        x[at] = x0[at] + gate[r] * (MODE == BLEND_ADD ? x[at] : x[at] - x0[at]);
    }
}

static int blend_cuda(struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *x0, const struct dev_f32 *gate, enum blend_mode mode,
                      int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    auto kernel = mode == BLEND_ADD ? blend_row<BLEND_ADD> : blend_row<BLEND_TOWARDS>;
    chain_launch(ctx_of(k), kernel, n.n_max, THREADS, 0, f32_of(x), f32_of(x0), f32_of(gate), d, n);
    return launched(k, "blend");
}

void gates_cuda_init(struct kern_ops *o)
{
    o->copy_rows = copy_rows_cuda;
    o->gather_rows = gather_rows_cuda;
    o->blend = blend_cuda;
}
