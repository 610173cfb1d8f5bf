/* Expert choice: how many rows are taken, and the order of margins. Shared by the backends and compiled for devices too. */
#pragma once
#include <stdint.h>

#ifdef __CUDACC__
#define EXPERT_FN static __host__ __device__ __forceinline__
#else
#define EXPERT_FN static inline
#endif

/* 0 if n = 0, else min(n, max(1, ceil(c n - 1e-6))); the 1e-6 keeps 0.28 * 25 at 7. 0 < c <= 1. */
EXPERT_FN int expert_count(double c, int n)
{
    double want = c * n - 1e-6;
    int count = (int)want; /* toward zero: the ceiling of what is no more than 0 is not needed */
    count += want > count;
    if (count < 1)
        count = 1;
    return count < n ? count : n;
}

/* Integers in the order of the numbers; 0 and -0 are equal, what is no number comes below all others. */
EXPERT_FN uint32_t margin_key(float g)
{
    union {
        float f;
        uint32_t u;
    } bits = {g + 0.0f};
    if (g != g)
        return 0;
    return bits.u & 0x80000000u ? ~bits.u : bits.u | 0x80000000u;
}
