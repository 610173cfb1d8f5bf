/* The inner product of the float32-accurate matmul on Hopper (matmul_accurate_sm90.cu has the idea): 64 rows of x, 64 columns deep, split into f16 terms in
 * registers, times PART columns of the weights. */
#pragma once
#include "kernels/cuda/matmul_sm90.cuh"
#include "kernels/cuda/terms.cuh"

enum { PART = 64 };

#if HAVE_SM90

/* A thread's share of 64 columns of x as operands, the larger term first; unscale: of its two rows. */
struct x_terms {
    uint32_t t[4][2][4];
    float unscale[2];
    __device__ __forceinline__ void split(const char *x)
    {
        int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        float2 v[4][4];
        float scale[2];
#pragma unroll
        for (int i = 0; i < 4; i++)
            load_x<64>(v[i], x, warp * 16 + lane / 4, i * 16 + lane % 4 * 2);
#pragma unroll
        for (int h = 0; h < 2; h++)
            scale[h] = scale_of(v, h, &unscale[h]);
#pragma unroll
        for (int i = 0; i < 16; i++)
            split_pair(make_float2(v[i / 4][i % 4].x * scale[i % 2], v[i / 4][i % 4].y * scale[i % 2]), &t[i / 4][0][i % 4],
                       &t[i / 4][1][i % 4]);
    }
    /* Of row h of the two: columns of one row lie in the four lanes of a quad. */
    static __device__ __forceinline__ float scale_of(const float2 (&v)[4][4], int h, float *unscale)
    {
        float top = 0;
#pragma unroll
        for (int i = 0; i < 4; i++)
            top = fmaxf(top, fmaxf(fmaxf(fabsf(v[i][h].x), fabsf(v[i][h].y)), fmaxf(fabsf(v[i][h + 2].x), fabsf(v[i][h + 2].y))));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        return half_scale(top, unscale);
    }
    /* These registers are not overwritten before the wait that came before. */
    __device__ __forceinline__ void ready()
    {
#pragma unroll
        for (int i = 0; i < 32; i++)
            asm volatile("" : "+r"(t[i / 8][i / 4 % 2][i % 4])::"memory");
    }
};

/* Starts part = x times one term of PART columns of the weights, at `w`: both terms of x, the smaller first, or the larger alone. */
template <bool BOTH> __device__ __forceinline__ void multiply_terms(float (&part)[PART / 2], const struct x_terms &x, uint32_t w)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (BOTH)
            wgmma<__half, PART>::rs<0>(part, x.t[i][1], tile_k_major(w) + i * 2, i > 0);
        wgmma<__half, PART>::rs<0>(part, x.t[i][0], tile_k_major(w) + i * 2, BOTH || i > 0);
    }
    wgmma_commit();
}

#endif /* HAVE_SM90 */
