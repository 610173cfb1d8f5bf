/* RMSNorm in 16 bits: one warp a row, which stays in registers between the sum and the scaling where it fits. In f32: 16 threads a row, the lanes of the
 * class portable-1. */
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/rmsnorm.cuh"

enum { ROWS_A_BLOCK = 8 };

/* What z gets beside y: nothing; the result in f32, and z may be x; the row of x, y and z being packed rows. */
enum form { ALONE, BOTH, GATHER };

/* Row length 4 * d4 <= 128 * CHUNKS. */
template <typename T, int CHUNKS, enum form FORM>
__global__ void rmsnorm_rows(T *y, float *z, const float *x, const float *w, struct rows n, int d4, float eps)
{
    int i = blockIdx.x * blockDim.y + threadIdx.y, lane = threadIdx.x;
    float4 weights[CHUNKS];
    chain_start_next();
#pragma unroll
    for (int c = 0; c < CHUNKS; c++)
        weights[c] = c * 32 + lane < d4 ? ((const float4 *)w)[c * 32 + lane] : make_float4(0, 0, 0, 0);
    chain_wait();
    if (i >= rows_count(n))
        return;
    size_t from = (size_t)row_at(n, i) * d4, row = FORM == GATHER ? (size_t)i * d4 : from;
    struct norm_row<CHUNKS> v;
    v.load((const float4 *)x + from, d4);
    float scale = v.scale(d4, eps);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        int j = c * 32 + lane;
        if (j >= d4)
            break;
        float out[4];
        v.scaled(out, c, scale, weights[c]);
        store4(y + (row + j) * 4, out);
        if (FORM == BOTH)
            store4(z + (row + j) * 4, out);
        if (FORM == GATHER)
            ((float4 *)z)[row + j] = v.v[c];
    }
}

template <typename T, enum form FORM>
__global__ void rmsnorm_any(T *y, float *z, const float *x, const float *w, struct rows n, int d, float eps)
{
    chain_enter();
    int i = blockIdx.x * blockDim.y + threadIdx.y;
    if (i >= rows_count(n))
        return;
    size_t from = (size_t)row_at(n, i) * d, row = FORM == GATHER ? (size_t)i * d : from;
    float sum = 0;
    for (int j = threadIdx.x; j < d; j += 32)
        sum = fmaf(x[from + j], x[from + j], sum);
    float scale = 1.0f / sqrtf(warp_sum(sum) / (float)d + eps);
    for (int j = threadIdx.x; j < d; j += 32) {
        float v = x[from + j], normed = v * scale * w[j];
        y[row + j] = from_f32<T>(normed);
        if (FORM != ALONE)
            z[row + j] = FORM == BOTH ? normed : v;
    }
}

template <enum form FORM>
__global__ static void rmsnorm_f32(float *y, float *z, const float *x, const float *w, struct rows n, int d, float eps)
{
    chain_enter();
    int i = (blockIdx.x * ROWS_A_BLOCK + threadIdx.y) * 2 + threadIdx.x / LANES;
    bool real = i < rows_count(n);
    size_t from = real ? (size_t)row_at(n, i) * d : 0, row = FORM == GATHER ? (size_t)i * d : from;
    float scale = lanes_rms_scale(real ? x + from : NULL, d, d, eps);
    for (int j = threadIdx.x % LANES; real && j < d; j += LANES) {
        float v = x[from + j], normed = v * scale * w[j];
        y[row + j] = normed;
        if (FORM != ALONE)
            z[row + j] = FORM == BOTH ? normed : v;
    }
}

template <enum form FORM, typename T>
static void start_16(T *y, float *z, const float *x, const float *w, struct rows n, int d, float eps, struct cuda_ctx *c)
{
    int rows = n.n_max <= c->n_sm ? 1 : ROWS_A_BLOCK; /* few rows: each has a multiprocessor of its own */
    dim3 grid(div_up(n.n_max, rows)), block(32, rows);
    if (d % 4 == 0 && d <= 1024)
        chain_launch(c, rmsnorm_rows<T, 8, FORM>, grid, block, 0, y, z, x, w, n, d / 4, eps);
    else if (d % 4 == 0 && d <= 2048)
        chain_launch(c, rmsnorm_rows<T, 16, FORM>, grid, block, 0, y, z, x, w, n, d / 4, eps);
    else
        chain_launch(c, rmsnorm_any<T, FORM>, grid, block, 0, y, z, x, w, n, d, eps);
}

template <enum form FORM>
static int start(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *z, const struct dev_f32 *x, const struct dev_f32 *w, struct rows n,
                 int d, float eps)
{
    struct cuda_ctx *c = ctx_of(k);
    if (n.n_max == 0)
        return 0;
    if (k->act == DTYPE_F32) {
        chain_launch(c, rmsnorm_f32<FORM>, div_up(n.n_max, 2 * ROWS_A_BLOCK), dim3(32, ROWS_A_BLOCK), 0, (float *)act_of(y), f32_of(z),
                     f32_of(x), f32_of(w), n, d, eps);
        return launched(k, "rmsnorm");
    }
    return with_type(k->act, [&](auto t) {
        start_16<FORM>((decltype(t) *)act_of(y), f32_of(z), f32_of(x), f32_of(w), n, d, eps, c);
        return launched(k, "rmsnorm");
    });
}

static int rmsnorm_cuda(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *z, const struct dev_f32 *x, const struct dev_f32 *w,
                        struct rows n, int d, float eps)
{
    return z ? start<BOTH>(k, y, z, x, w, n, d, eps) : start<ALONE>(k, y, z, x, w, n, d, eps);
}

static int gather_norm_cuda(struct kern_ctx *k, struct dev_act *y, struct dev_f32 *dst, const struct dev_f32 *x, const struct dev_f32 *w,
                            struct rows n, int d, float eps)
{
    return start<GATHER>(k, y, dst, x, w, n, d, eps);
}

void rmsnorm_cuda_init(struct kern_ops *o)
{
    o->rmsnorm = rmsnorm_cuda;
    o->gather_norm = gather_norm_cuda;
}
