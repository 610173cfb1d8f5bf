/* Float32 products of --matmul-precision high: both operands as two f16 terms of scaled rows (split.cu). Of the terms' products the three larger are added,
 * small ones first; what is left out is below 2^-22 of a product. Tensor cores cut off what an accumulator cannot hold, where float32 would round: so they sum
 * HIGH_K columns only, and those sums are added in plain float32, ascending. Which tile computes an output makes no difference within a level. */
#pragma once
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/portable.h"

enum { HIGH_K = 64 };

/* Columns of a term of rows of k elements; those beyond k are 0. */
static inline int high_ld(int k)
{
    return (k + HIGH_K - 1) / HIGH_K * HIGH_K;
}

/* Rows of terms, [n, 2 high_ld], the smaller term first, and what takes a row's scale back, [n]. */
struct high_terms {
    __half *terms;
    float *unscale;
};

/* The rows of the set, side by side, in scratch memory. */
int high_split(struct cuda_ctx *c, const struct matmul_in *in, int k, struct rows n, struct high_terms *ret);
/* Makes w's terms of w->data, and frees that where nothing else needs it. */
int high_weights(struct cuda_ctx *c, struct kern_matrix *w);

struct high_args {
    struct tile_args t;
    const float *x_unscale, *w_unscale;
    int term_ld;
};

/* Columns c .. c+3 of step row r, and their copies: float32's write_fan. */
__device__ __forceinline__ void fan_quad(const struct matmul_out &o, int r, int c, float4 v, int n)
{
    float e[4] = {v.x, v.y, v.z, v.w};
    for (int j = 0; j < 4 && j < n; j++)
        for (int g = 0; g < o.fan_group; g++)
            ((float *)o.fan)[(size_t)r * o.n * o.fan_group + ((c + j) / o.hd * o.fan_group + g) * o.hd + (c + j) % o.hd] = e[j];
}

/* 32 staged columns, col0 .., none at or beyond `end`. */
__device__ __forceinline__ void write_high_panel(const struct matmul_out &o, const float *stage, const struct out_rows &rows, int col0,
                                                 int end)
{
    int lane = threadIdx.x % 32, col = col0 + lane % 8 * 4;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (rows.r[i] < 0 || col >= end)
            continue;
        float4 v = *(const float4 *)(stage + (i * 4 + lane / 8) * STAGING_LD_F32 + lane % 8 * 4);
        write_quad(o, (float *)o.y + (size_t)rows.r[i] * o.ldy + col, v, rows.gate[i], end - col);
        if (o.fan)
            fan_quad(o, rows.r[i], col, v, end - col);
    }
    __syncwarp();
}

/* A thread's sums of 16 rows become products: the scales are taken back, the weights' first, whose values are moderate. */
template <int N> __device__ __forceinline__ void unscale_sums(const struct high_args &a, float (&acc)[N], int row0, int m, int n0)
{
    int lane = threadIdx.x % 32, r = row0 + lane / 4;
    float xu[2] = {r < m ? a.x_unscale[r] : 0, r + 8 < m ? a.x_unscale[r + 8] : 0};
#pragma unroll
    for (int q = 0; q < N; q += 4) {
        float2 wu = *(const float2 *)(a.w_unscale + n0 + q * 2 + lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; i++)
            acc[q + i] = acc[q + i] * (i % 2 ? wu.y : wu.x) * xu[i / 2];
    }
}

/* Stages 8 outputs of the row pair: of columns q * 2 .. of the tile, or (packed columns as in GATE_UP) their gates and ups. */
template <int N> __device__ __forceinline__ void stage_plain(const struct tile_args &a, const float (&acc)[N], int q, float *dst, int col)
{
    float2 b = bias_at(a, col);
    *(float2 *)dst = make_float2(acc[q] + b.x, acc[q + 1] + b.y);
    *(float2 *)(dst + 8 * STAGING_LD_F32) = make_float2(acc[q + 2] + b.x, acc[q + 3] + b.y);
}
template <int N> __device__ __forceinline__ void stage_swiglu(const struct tile_args &a, const float (&acc)[N], int q, float *dst, int col)
{
    float2 g = bias_at(a, col), u = bias_at(a, col + 8);
    *(float2 *)dst = make_float2(portable_silu(acc[q] + g.x) * (acc[q + 4] + u.x), portable_silu(acc[q + 1] + g.y) * (acc[q + 5] + u.y));
    *(float2 *)(dst + 8 * STAGING_LD_F32) =
        make_float2(portable_silu(acc[q + 2] + g.x) * (acc[q + 6] + u.x), portable_silu(acc[q + 3] + g.y) * (acc[q + 7] + u.y));
}

/* acc: 16 rows x BN columns of a warp, as in matmul_tile.cuh; rows row0 .. of the set's m. */
template <int BN>
__device__ __forceinline__ void write_high(const struct high_args &a, float (&acc)[BN / 2], float *stage, int row0, int m, int n0)
{
    struct out_rows rows(a.t.out, row0, m);
    int lane = threadIdx.x % 32, c = lane % 4 * 2;
    float *dst = stage + lane / 4 * STAGING_LD_F32 + c;
    unscale_sums(a, acc, row0, m, n0);
    if (a.t.out.end == END_SWIGLU) {
        int f0 = n0 / 2, end = min(a.t.out.n, f0 + BN / 2);
#pragma unroll
        for (int p = 0; p < BN / 2; p += 32) {
#pragma unroll
            for (int j = 0; j < 32 && p + j < BN / 2; j += 8)
                stage_swiglu(a.t, acc, p + j, dst + j, n0 + (p + j) * 2 + c);
            write_high_panel(a.t.out, stage, rows, f0 + p, end);
        }
        return;
    }
    int end = min(a.t.out.n, n0 + BN);
#pragma unroll
    for (int p = 0; p < BN; p += 32) {
#pragma unroll
        for (int j = 0; j < 32 && p + j < BN; j += 8)
            stage_plain(a.t, acc, (p + j) / 2, dst + j, n0 + p + j + c);
        write_high_panel(a.t.out, stage, rows, n0 + p, end);
    }
}
