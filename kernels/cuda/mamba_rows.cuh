/* What the kernels before the scan share: products in slices by register tiles, and the arrays that the scan reads. */
#pragma once
#include "kernels/cuda/mamba.cuh"

/* Adds a slice to a thread's sums: TM rows, 16 apart, and four columns, or eight: four and four more `half` further. x: input i0 of its first row, a
 * multiple of 16 bytes as ldx is; w: row i0 of the weights at its first column. */
template <int TM, int TN>
__device__ __forceinline__ void add_slice(float (&sum)[TM][TN], const float *x, int ldx, const float *w, int ldw, int half)
{
    float acc[TM][TN] = {};
#pragma unroll
    for (int i = 0; i < SLICE; i += 4) {
        float4 in[TM];
#pragma unroll
        for (int t = 0; t < TM; t++)
            in[t] = *(const float4 *)&x[16 * t * ldx + i];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float4 wv[TN / 4];
#pragma unroll
            for (int h = 0; h < TN / 4; h++)
                wv[h] = *(const float4 *)&w[(i + j) * ldw + h * half];
#pragma unroll
            for (int t = 0; t < TM; t++) {
                float v = j == 0 ? in[t].x : j == 1 ? in[t].y : j == 2 ? in[t].z : in[t].w;
#pragma unroll
                for (int h = 0; h < TN / 4; h++) {
                    acc[t][h * 4] = fmaf(v, wv[h].x, acc[t][h * 4]);
                    acc[t][h * 4 + 1] = fmaf(v, wv[h].y, acc[t][h * 4 + 1]);
                    acc[t][h * 4 + 2] = fmaf(v, wv[h].z, acc[t][h * 4 + 2]);
                    acc[t][h * 4 + 3] = fmaf(v, wv[h].w, acc[t][h * 4 + 3]);
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < TM; t++)
#pragma unroll
        for (int c = 0; c < TN; c++)
            sum[t][c] += acc[t][c];
}

/* Columns 4 h .. of a thread's sums of row t. */
template <int TM, int TN> __device__ __forceinline__ float4 four_sums(const float (&sum)[TM][TN], int t, int h)
{
    return make_float4(sum[t][h * 4], sum[t][h * 4 + 1], sum[t][h * 4 + 2], sum[t][h * 4 + 3]);
}

/* D and D c of four rows and channel e, to their place in mamba_rows.delta. Of the rows, which lie ldx and ldc apart, n count; there is memory for all. */
__device__ __forceinline__ void put_delta(const struct mamba_weights &w, float *to, const float *x, int ldx, const float *c, int ldc, int n,
                                          int e)
{
    float d[4] = {}, dc[4] = {};
    if (e < w.e)
        mamba_delta(w, x, ldx, e, d);
#pragma unroll
    for (int t = 0; t < 4; t++) {
        d[t] = t < n ? d[t] : 0;
        dc[t] = t < n ? d[t] * c[t * ldc + e] : 0;
    }
    store4(to, d);
    store4(to + 4, dc);
}

/* Entry i of 2 sp of the same rows, B first, to their part of mamba_rows.bc. */
__device__ __forceinline__ void put_bc(const struct mamba_weights &w, float *to, const float *x, int ldx, int n, int i)
{
    float v[4];
    int state = i < w.sp ? i : i - w.sp, column = w.n_dt + (i < w.sp ? 0 : w.n_state) + state;
#pragma unroll
    for (int t = 0; t < 4; t++)
        v[t] = t < n && state < w.n_state ? x[t * ldx + column] : 0.0f;
    store4(to + i * 4, v);
}
