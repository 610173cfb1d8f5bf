/* What the kernels share: row sets, element types, reductions in one fixed order, vector loads.
 *
 * Everything is compiled without FP contraction: a fused multiply-add stands where it is written (fmaf). */
#pragma once
#include "kernels/cuda/chain.cuh"
#include "kernels/dev_ptr.h"
#include <cuda_bf16.h>
#include <cuda_fp16.h>

/* ---- row sets ---- */
__device__ __forceinline__ int rows_count(const struct rows &n)
{
    return n.n_dev ? *i32_of(n.n_dev) : n.n_max;
}
__device__ __forceinline__ int row_at(const struct rows &n, int i)
{
    return n.idx ? i32_of(n.idx)[i] : i;
}

/* ---- element types ---- */
__device__ __forceinline__ float to_f32(float v)
{
    return v;
}
__device__ __forceinline__ float to_f32(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}
__device__ __forceinline__ float to_f32(__half v)
{
    return __half2float(v);
}
template <typename T> __device__ __forceinline__ T from_f32(float v);
template <> __device__ __forceinline__ float from_f32<float>(float v)
{
    return v;
}
template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float v)
{
    return __float2bfloat16_rn(v);
}
template <> __device__ __forceinline__ __half from_f32<__half>(float v)
{
    return __float2half_rn(v);
}

/* Four consecutive elements, the address a multiple of their size. */
template <typename T> struct alignas(4 * sizeof(T)) vec4 {
    T v[4];
};
template <typename T> __device__ __forceinline__ void load4(float out[4], const T *p)
{
    vec4<T> x = *(const vec4<T> *)p;
    for (int i = 0; i < 4; i++)
        out[i] = to_f32(x.v[i]);
}
template <typename T> __device__ __forceinline__ void store4(T *p, const float in[4])
{
    vec4<T> x;
    for (int i = 0; i < 4; i++)
        x.v[i] = from_f32<T>(in[i]);
    *(vec4<T> *)p = x;
}

/* Calls f with a value of the compute type. */
template <typename F> static inline int with_type(enum dtype t, F f)
{
    switch (t) {
    case DTYPE_BF16: return f(__nv_bfloat16());
    case DTYPE_F16: return f(__half());
    default: return f(float());
    }
}

/* ---- reductions: the same tree whatever the values ---- */
__device__ __forceinline__ float warp_sum(float v)
{
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(~0u, v, d);
    return v;
}
__device__ __forceinline__ float warp_max(float v)
{
    for (int d = 16; d; d >>= 1)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
    return v;
}
/* Over a block of WARPS warps; every thread gets the result. `tmp`: shared, [WARPS]. */
template <int WARPS> __device__ __forceinline__ float block_sum(float v, float *tmp)
{
    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        tmp[threadIdx.x / 32] = v;
    __syncthreads();
    float s = 0;
    for (int i = 0; i < WARPS; i++)
        s += tmp[i];
    return s;
}

__device__ __forceinline__ float silu(float z)
{
    return z / (1.0f + expf(-z));
}

/* blend's formula (op_list.h). */
template <enum blend_mode MODE> __device__ __forceinline__ float blended(float x, float y, float gate)
{
    return x + gate * (MODE == BLEND_ADD ? y : y - x);
}

static __host__ __device__ inline int div_up(int a, int b)
{
    return (a + b - 1) / b;
}
