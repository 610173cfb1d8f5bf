/* RMSNorm of a row by one warp, the row in registers: shared by the op and by products that norm their few rows themselves, so that both give the same bits. */
#pragma once
#include "kernels/cuda/common.cuh"

/* Four neighbouring elements a lane and chunk: row length 4 * d4 <= 128 * CHUNKS. */
template <int CHUNKS> struct norm_row {
    float4 v[CHUNKS];

    __device__ __forceinline__ void load(const float4 *src, int d4)
    {
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            int j = c * 32 + threadIdx.x % 32;
            v[c] = j < d4 ? src[j] : make_float4(0, 0, 0, 0);
        }
    }
    /* 1 / sqrt(mean of squares + eps) */
    __device__ __forceinline__ float scale(int d4, float eps) const
    {
        float sum = 0;
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            sum = fmaf(v[c].x, v[c].x, fmaf(v[c].y, v[c].y, fmaf(v[c].z, v[c].z, fmaf(v[c].w, v[c].w, sum))));
        return 1.0f / sqrtf(warp_sum(sum) / (float)(4 * d4) + eps);
    }
    /* Elements of chunk c times the scale and their weights. */
    __device__ __forceinline__ void scaled(float (&out)[4], int c, float scale, float4 w) const
    {
        out[0] = v[c].x * scale * w.x;
        out[1] = v[c].y * scale * w.y;
        out[2] = v[c].z * scale * w.z;
        out[3] = v[c].w * scale * w.w;
    }
};
