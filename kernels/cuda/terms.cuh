/* Float32 values as sums of three bf16 terms, the operands of the float32-accurate matmuls. */
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
