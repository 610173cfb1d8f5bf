/* RMSNorm in 16 bits: one warp a row, which stays in registers between the sum and the scaling where it fits. In f32: 16 threads a row, the lanes of the
 * class portable-1. Z: the result is wanted in f32 as well, at z, which may be x. */
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/rmsnorm.cuh"

enum { ROWS_A_BLOCK = 8 };

/* Row length 4 * d4 <= 128 * CHUNKS. */
template <typename T, int CHUNKS, bool Z>
__global__ void rmsnorm_rows(T *y, float *z, const float *x, const float *w, struct rows n, int d4, float eps)
{
    chain_enter();
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y, lane = threadIdx.x;
    if (i >= rows_count(n))
        return;
    size_t row = (size_t)row_at(n, i) * d4;
    struct norm_row<CHUNKS> v;
    v.load((const float4 *)x + row, d4);
    float scale = v.scale(d4, eps);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int j = c * 32 + lane;
        if (j >= d4)
            break;
        float out[4];
        v.scaled(out, c, scale, ((const float4 *)w)[j]);
        store4(y + (row + j) * 4, out);
        if (Z)
            store4(z + (row + j) * 4, out);
    }
}

template <typename T> __global__ void rmsnorm_any(T *y, float *z, const float *x, const float *w, struct rows n, int d, float eps)
{
    chain_enter();
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    size_t row = (size_t)row_at(n, i) * d;
    float sum = 0;
    for (int j = threadIdx.x; j < d; j += 32)
        sum = fmaf(x[row + j], x[row + j], sum);
    float scale = 1.0f / sqrtf(warp_sum(sum) / (float)d + eps);
    for (int j = threadIdx.x; j < d; j += 32) {
        float v = x[row + j] * scale * w[j];
        y[row + j] = from_f32<T>(v);
        if (z)
            z[row + j] = v;
    }
}

__global__ static void rmsnorm_f32(float *y, float *z, const float *x, const float *w, struct rows n, int d, float eps)
{
    chain_enter();
    int i = (blockIdx.x * ROWS_A_BLOCK + threadIdx.y) * 2 + threadIdx.x / LANES;
    bool real = i < rows_count(n);
    size_t row = real ? (size_t)row_at(n, i) * d : 0;
    float scale = lanes_rms_scale(real ? x + row : NULL, d, d, eps);
    for (int j = threadIdx.x % LANES; real && j < d; j += LANES) {
        float v = x[row + j] * scale * w[j];
        y[row + j] = v;
        if (z)
            z[row + j] = v;
    }
}

template <bool Z, typename T>
static void start(T *y, float *z, const float *x, const float *w, struct rows n, int d, float eps, struct cuda_ctx *c)
{
    dim3 grid(div_up(n.n_max, ROWS_A_BLOCK)), block(32, ROWS_A_BLOCK);
    if (d % 4 == 0 && d <= 1024)
        chain_launch(c, rmsnorm_rows<T, 8, Z>, grid, block, 0, y, z, x, w, n, d / 4, eps);
    else if (d % 4 == 0 && d <= 2048)
        chain_launch(c, rmsnorm_rows<T, 16, Z>, grid, block, 0, y, z, x, w, n, d / 4, eps);
    else
        chain_launch(c, rmsnorm_any<T>, grid, block, 0, y, z, x, w, n, d, eps);
}

static int rmsnorm_cuda(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *z, const struct dev_f32 *x, const struct dev_f32 *w,
                        struct rows n, int d, float eps)
{
    if (n.n_max == 0)
        return 0;
    struct cuda_ctx *c = ctx_of(k);
    if (k->act == DTYPE_F32) {
        chain_launch(c, rmsnorm_f32, div_up(n.n_max, 2 * ROWS_A_BLOCK), dim3(32, ROWS_A_BLOCK), 0, (float *)act_of(y), f32_of(z), f32_of(x),
                     f32_of(w), n, d, eps);
        return launched(k, "rmsnorm");
    }
    return with_type(k->act, [&](auto t) {
        typedef decltype(t) T;
        if (z)
            start<true>((T *)act_of(y), f32_of(z), f32_of(x), f32_of(w), n, d, eps, c);
        else
            start<false>((T *)act_of(y), (float *)NULL, f32_of(x), f32_of(w), n, d, eps, c);
        return launched(k, "rmsnorm");
    });
}

void rmsnorm_cuda_init(struct kern_ops *o)
{
    o->rmsnorm = rmsnorm_cuda;
}
