/* Float32 products of few rows, as in decoding: the chain of matmul_f32.cu, one thread an output, which may be no other way; so a block takes few columns, and weights
 * stream through shared memory in STAGES tiles of 32 inputs.
 *
 * A block has 32 columns; warp w has rows w R .. w R + R - 1, lane l column l. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/portable.h"

enum { BN = 32, BK = 32, WARPS = 8, THREADS = 32 * WARPS, LD = BK + 4, STAGES = 6, CHUNKS = BK / 4 };

struct few_args {
    const float *x, *w;
    int ldx, ldw, w_rows, k;
    struct matmul_out out;
};

/* Starts the copies of inputs k0 .. into a stage: [BN][LD] of weights, then [8 R][LD] of x; zeros beyond the last input, column and row. */
template <int R> __device__ __forceinline__ void fetch(const struct few_args &a, float *stage, int n0, int m, int k0)
{
    for (int i = threadIdx.x; i < (BN + WARPS * R) * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, c = i % CHUNKS * 4, left = (a.k - k0 - c) * 4, bytes = left < 0 ? 0 : left < 16 ? left : 16;
        const float *src = a.w;
        if (row < BN && n0 + row < a.w_rows)
            src = a.w + (size_t)(n0 + row) * a.ldw + k0 + c;
        else if (row >= BN && row - BN < m)
            src = a.x + (size_t)row_at(a.out.rows, row - BN) * a.ldx + k0 + c;
        else
            bytes = 0;
        copy16_part(smem_address(stage + row * LD + c), bytes ? src : a.w, bytes);
    }
    copy_commit();
}

template <int R> __device__ __forceinline__ void multiply(float (&acc)[R], const float *stage)
{
    const float *w = stage + threadIdx.x % 32 * LD, *x = stage + (BN + threadIdx.x / 32 * R) * LD;
#pragma unroll
    for (int k = 0; k < BK; k += 4) {
        float4 wv = *(const float4 *)(w + k);
#pragma unroll
        for (int r = 0; r < R; r++) {
            float4 xv = *(const float4 *)(x + r * LD + k);
            acc[r] = fmaf(xv.x, wv.x, acc[r]);
            acc[r] = fmaf(xv.y, wv.y, acc[r]);
            acc[r] = fmaf(xv.z, wv.z, acc[r]);
            acc[r] = fmaf(xv.w, wv.w, acc[r]);
        }
    }
}

/* The biased product v of packed column c; `up`: of the column 8 further. */
__device__ __forceinline__ void finish(const struct matmul_out &o, int r, int c, float v, float up)
{
    if (o.end == END_SWIGLU) {
        int f = c / 16 * 8 + c % 8;
        if (c % 16 < 8 && f < o.n)
            ((float *)o.y)[(size_t)r * o.ldy + f] = portable_silu(v) * up;
        return;
    }
    if (c >= o.n)
        return;
    float *y = (float *)o.y + (size_t)r * o.ldy + c;
    *y = o.end == END_RESIDUAL ? *y + (o.gate ? o.gate[r] : 1.0f) * v : v;
    for (int g = 0; o.fan && g < o.fan_group; g++)
        ((float *)o.fan)[(size_t)r * o.n * o.fan_group + (c / o.hd * o.fan_group + g) * o.hd + c % o.hd] = v;
}

template <int R> __global__ static void __launch_bounds__(THREADS) few_rows(const __grid_constant__ struct few_args a)
{
    extern __shared__ __align__(16) float raw[];
    const int STAGE = (BN + WARPS * R) * LD;
    int m = rows_count(a.out.rows), n0 = blockIdx.x * BN, tiles = (a.k + BK - 1) / BK, warp = threadIdx.x / 32;
    if (m == 0)
        return;
    float acc[R] = {};
    for (int t = 0; t < STAGES - 1; t++)
        fetch<R>(a, raw + t * STAGE, n0, m, t * BK); /* beyond the last tile: zeros, never read */
    for (int t = 0; t < tiles; t++) {
        copy_wait<STAGES - 2>();
        __syncthreads(); /* the tile has come, and everyone is done with the one whose place is filled next */
        fetch<R>(a, raw + (t + STAGES - 1) % STAGES * STAGE, n0, m, (t + STAGES - 1) * BK);
        if (warp * R < m)
            multiply<R>(acc, raw + t % STAGES * STAGE);
    }
    int c = n0 + threadIdx.x % 32;
    float bias = a.out.bias && c < a.w_rows ? a.out.bias[c] : 0.0f;
#pragma unroll
    for (int i = 0; i < R; i++) {
        float v = acc[i] + bias, up = __shfl_xor_sync(~0u, v, 8);
        if (warp * R + i < m)
            finish(a.out, row_at(a.out.rows, warp * R + i), c, v, up);
    }
}

template <int R> static int start(struct cuda_ctx *c, const struct few_args &a)
{
    int bytes = STAGES * (BN + WARPS * R) * LD * (int)sizeof(float);
    int r = cuda_allow_shared(c, (const void *)few_rows<R>, bytes);
    if (r < 0)
        return r;
    few_rows<R><<<div_up(a.w_rows, BN), THREADS, bytes, c->stream>>>(a);
    return launched(&c->k, "matmul_few_f32");
}

int matmul_few_f32(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    struct few_args a = {(const float *)in->x, (const float *)w->data, in->ldx, w->ld, w->rows, w->k, *out};
    int rows = out->rows.n_max;
    return rows <= 8 ? start<1>(c, a) : rows <= 16 ? start<2>(c, a) : rows <= 32 ? start<4>(c, a) : start<8>(c, a);
}
