/* Sums in one fixed order, shared by the ops. Everything is inline, branch-free where it can be, and means the same in every file that
 * includes it, so long as the file is compiled without contraction. The functions are those of kernels/portable.h. */
#pragma once
#include "kernels/portable.h"
#include <math.h>
#if defined(__FMA__)
#include <immintrin.h>
#endif

/* Sums of many floats are taken in SUM_LANES interleaved parts, then halves are folded onto each other: one order at every vector width.
 * The parts are held as native vectors, which stay in registers. */
enum { SUM_LANES = 16 };
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
typedef float native_vector __attribute__((vector_size(VECTOR_BYTES)));

struct lanes {
    native_vector v[SUM_LANES * 4 / VECTOR_BYTES];
};

/* The next SUM_LANES values of x, of which n are left; what is missing is 0. */
static inline struct lanes lanes_load(const float *x, int n)
{
    struct lanes r;
    float last[SUM_LANES] = {0};
    if (n < SUM_LANES)
        x = memcpy(last, x, sizeof(float) * n);
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        memcpy(&r.v[i], x + i * (VECTOR_BYTES / 4), VECTOR_BYTES); /* each whole, so that it goes straight into a register */
    return r;
}

static inline void lanes_add(struct lanes *sum, struct lanes a)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] += a.v[i];
}

/* a f + c, rounded once. */
static inline native_vector native_fma(native_vector a, float f, native_vector c)
{
#if defined(__AVX512F__)
    return (native_vector)_mm512_fmadd_ps((__m512)a, _mm512_set1_ps(f), (__m512)c);
#elif defined(__FMA__)
    return (native_vector)_mm256_fmadd_ps((__m256)a, _mm256_set1_ps(f), (__m256)c);
#else
    for (int i = 0; i < VECTOR_BYTES / 4; i++)
        c[i] = portable_fma(a[i], f, c[i]);
    return c;
#endif
}

/* sum += a f, fused. */
static inline void lanes_add_scaled(struct lanes *sum, struct lanes a, float f)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] = native_fma(a.v[i], f, sum->v[i]);
}

static inline void lanes_scale(struct lanes *sum, float f)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] *= f;
}

static inline void lanes_add_squares(struct lanes *sum, struct lanes a)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] += a.v[i] * a.v[i];
}

/* s[SUM_LANES] as a tree: halves are folded onto each other. */
static inline float sum_tree(float *s)
{
    for (int half = SUM_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    return s[0];
}

static inline float lanes_sum(const struct lanes *sum)
{
    float s[SUM_LANES];
    memcpy(s, sum, sizeof(s));
    return sum_tree(s);
}

/* 1 / sqrt(mean(x^2) + eps) of x[d]. */
static inline float rms_scale_c(const float *x, int d, float eps)
{
    struct lanes sum = {0};
    int i = 0;
    for (; i + SUM_LANES <= d; i += SUM_LANES)
        lanes_add_squares(&sum, lanes_load(x + i, SUM_LANES));
    if (i < d)
        lanes_add_squares(&sum, lanes_load(x + i, d - i));
    return 1.0f / sqrtf(lanes_sum(&sum) / (float)d + eps);
}

/* sum_i a[i] b[i] in double, in 8 lanes: for the few sums that decide something. */
static inline double dot_double(const float *a, const float *b, int n)
{
    double lane[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += (double)a[i + l] * b[i + l];
    for (; i < n; i++)
        lane[i & 7] += (double)a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}
