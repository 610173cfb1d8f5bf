/* Tensor-core instructions of every device that is supported (compute capability 8.0) that have no C++ form: asynchronous copies, loads of
 * 8x8 matrices from shared memory, and warp matrix products. PTX ISA, "Matrix multiply-accumulate operation using mma instruction". */
#pragma once
#include "kernels/cuda/common.cuh"

__device__ __forceinline__ uint32_t smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- copies ---- */
/* 16 bytes; zeros where !valid (src must be an address in any case). */
__device__ __forceinline__ void copy16(uint32_t dst, const void *src, bool valid)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(valid ? 16 : 0) : "memory");
}
/* Four bytes, through the L1 cache. */
__device__ __forceinline__ void copy4_cached(uint32_t dst, const void *src)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(dst), "l"(src) : "memory");
}
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int N> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
/* The first `bytes` (0 to 16) of 16; zeros behind them. */
__device__ __forceinline__ void copy16_part(uint32_t dst, const void *src, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes) : "memory");
}

/* ---- two floats as a pair of 16-bit numbers ---- */
template <typename T> __device__ __forceinline__ uint32_t pack2(float a, float b);
template <> __device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float a, float b)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&v;
}
template <> __device__ __forceinline__ uint32_t pack2<__half>(float a, float b)
{
    __half2 v = __floats2half2_rn(a, b);
    return *(uint32_t *)&v;
}

/* ---- warp matrices ----
 *
 * Four 8x8 matrices of 16-bit elements, lane i giving the address of row i % 8 of matrix i / 8: a lane gets elements 2 (lane % 4) and the next of row
 * lane / 4 of each; transposed: rows and columns change places. */
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_transposed(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* d[16,8] += a[16,16] b[16,8]. A lane holds of d: rows lane / 4 (d[0], d[1]) and that + 8 (d[2], d[3]), columns 2 (lane % 4) and the next; of a: the same
 * rows, k 2 (lane % 4) .. in a[0], a[1] and k 8 further in a[2], a[3]; of b: column lane / 4, the same k in b0 and b1. */
template <typename T> __device__ __forceinline__ void mma(float *d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#define MMA(TYPE, NAME)                                                                                                                   \
    template <> __device__ __forceinline__ void mma<TYPE>(float *d, const uint32_t(&a)[4], uint32_t b0, uint32_t b1)                      \
    {                                                                                                                                     \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                              \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                                              \
    }
MMA(__nv_bfloat16, "bf16")
MMA(__half, "f16")
