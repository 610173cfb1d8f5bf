/* Sums as the class portable-1 takes them (docs/portable-float32.md): the CPU's lanes, one a thread. */
#pragma once
#include "kernels/cuda/common.cuh"
#include "kernels/portable.h"

/* Threads 16 i .. 16 i + 15 of a warp are the lanes of a row; each gets the tree's sum. Every thread of the warp takes part. */
enum { LANES = 16 };

__device__ __forceinline__ float lanes_tree(float v)
{
    for (int half = LANES / 2; half; half /= 2)
        v += __shfl_xor_sync(~0u, v, half);
    return v;
}

/* 1 / sqrt(sum(x^2) / mean_of + eps) of x[n]; x NULL: no row, the result means nothing. */
__device__ __forceinline__ float lanes_rms_scale(const float *x, int n, int mean_of, float eps)
{
    float sum = 0;
    for (int j = threadIdx.x % LANES; x && j < n; j += LANES)
        sum += x[j] * x[j];
    return 1.0f / sqrtf(lanes_tree(sum) / (float)mean_of + eps);
}

/* The tree of 8 lanes of a sum in double. */
__device__ __forceinline__ double lanes8_tree(double v)
{
    for (int half = 4; half; half /= 2)
        v += __shfl_xor_sync(~0u, v, half);
    return v;
}
