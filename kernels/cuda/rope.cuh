/* The rotation of positions, as each kernel that rotates has it: the same bits. */
#pragma once
#include "kernels/cuda/common.cuh"

/* lo[i] and hi[i]: elements i and half + i of a head from src on, turned by cos[i] and sin[i]. */
template <typename T>
__device__ __forceinline__ void rotated4(float (&lo)[4], float (&hi)[4], const T *src, const float *cos, const float *sin, int half)
{
    float a[4], b[4], c[4], s[4];
    load4(a, src);
    load4(b, src + half);
    load4(c, cos);
    load4(s, sin);
    for (int i = 0; i < 4; i++) {
        lo[i] = a[i] * c[i] - b[i] * s[i];
        hi[i] = b[i] * c[i] + a[i] * s[i];
    }
}
