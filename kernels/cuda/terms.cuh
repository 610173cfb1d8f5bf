/* Float32 values as sums of 16-bit terms, the operands of the float32-accurate matmuls: three of bf16, or two of f16 once scaled. */
#pragma once
#include "kernels/cuda/mma.cuh"

/* The next bf16 term of eight values, which keep the rest. */
__device__ __forceinline__ void take_term(uint32_t out[4], float2 v[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float a = __bfloat162float(__float2bfloat16_rn(v[i].x)), b = __bfloat162float(__float2bfloat16_rn(v[i].y));
        out[i] = pack2<__nv_bfloat16>(a, b);
        v[i].x -= a;
        v[i].y -= b;
    }
}

/* Rows r and r + 8, columns c, c+1 and c+8, c+9 of f32 x in panels of ROWS rows and 32 columns, whose 16-byte chunk i of row r lies at chunk i ^ (r % 8): the order
 * in which mma and wgmma take A. */
template <int ROWS> __device__ __forceinline__ void load_x(float2 v[4], const char *x, int r, int c)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = r + i % 2 * 8, col = c + i / 2 * 8;
        int chunk = col % 32 / 4 ^ row % 8;
        v[i] = *(const float2 *)(x + col / 32 * ROWS * 128 + row * 128 + chunk * 16 + col % 4 * 4);
    }
}

/* The power of two that brings |top| to [2^14, 2^15), and its inverse: both normal numbers. Zeros and what is tiny are scaled by 2^126. */
__device__ __forceinline__ float half_scale(float top, float *unscale)
{
    int e = max(15, (int)(__float_as_uint(top) >> 23));
    *unscale = __uint_as_float((uint32_t)(e - 14) << 23);
    return __uint_as_float((uint32_t)(268 - e) << 23);
}

/* Two f16 terms of two values below 2^15: what is left of a value v is below 2^-24 |v|, or 2^-25. */
__device__ __forceinline__ void split_pair(float2 v, uint32_t *hi, uint32_t *lo)
{
    __half2 h = __floats2half2_rn(v.x, v.y);
    float2 near = __half22float2(h);
    *hi = *(uint32_t *)&h;
    *lo = pack2<__half>(v.x - near.x, v.y - near.y);
}
