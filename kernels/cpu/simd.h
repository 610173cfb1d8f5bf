/* The few vector operations that level files share, at the width of the level that compiles them: 16 floats with AVX-512, 8 with AVX2.
 * Included only by files built with one of those levels' flags. Multiply-add is always fused. */
#pragma once
#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#ifdef __AVX512F__
enum { VL = 16 };
typedef __m512 vf;
static inline vf vf_set(float v)
{
    return _mm512_set1_ps(v);
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_round(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a 2^n for integral n in -126..127. */
static inline vf vf_scale(vf a, vf n)
{
    return _mm512_scalef_ps(a, n);
}
/* 16 bf16 values; a pair of values in each 32-bit lane: the first and the second ones. */
static inline vf vf_load_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
static inline void vf_load_pairs(const uint16_t *p, vf *first, vf *second)
{
    __m512i v = _mm512_loadu_si512(p);
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
    *second = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
}
#else
enum { VL = 8 };
typedef __m256 vf;
static inline vf vf_set(float v)
{
    return _mm256_set1_ps(v);
}
static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_round(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf vf_scale(vf a, vf n)
{
    return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}
static inline vf vf_load_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
static inline void vf_load_pairs(const uint16_t *p, vf *first, vf *second)
{
    __m256i v = _mm256_loadu_si256((const void *)p);
    *first = _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
    *second = _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000)));
}
#endif

/* 2^x within 2e-8 of itself before rounding, for -126 <= x < 127.5; below -126 it is 2^-126. NaN stays NaN. n + f = x with
 * |f| <= 1/2, then a minimax polynomial of 2^f. */
static inline vf vf_exp2(vf x)
{
    x = vf_max(vf_set(-126), x);
    vf n = vf_round(x), f = vf_sub(x, n), p = vf_set(0x1.41d334p-13f);
    p = vf_fma(p, f, vf_set(0x1.5f456ap-10f));
    p = vf_fma(p, f, vf_set(0x1.3b2dbcp-7f));
    p = vf_fma(p, f, vf_set(0x1.c6aed4p-5f));
    p = vf_fma(p, f, vf_set(0x1.ebfbdap-3f));
    p = vf_fma(p, f, vf_set(0x1.62e430p-1f));
    p = vf_fma(p, f, vf_set(1));
    return vf_scale(p, n);
}

/* The sum, and the greatest, of the lanes: halves are folded onto each other. */
static inline float vf_sum(vf v)
{
    float lane[VL];
    vf_store(lane, v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

static inline float vf_greatest(vf v)
{
    float lane[VL];
    vf_store(lane, v);
    for (int half = VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}
