/* The functions of the numerics class portable-1 (docs/portable-float32.md), for every backend: the compiler of C and that of CUDA read the same text.
 *
 * Nothing but additions, products, quotients, exact steps on bits and fused multiply-adds where they are written, each rounded to nearest; both
 * compilers are told not to contract, reorder or flush. So every function gives the same bits on every machine. A change of any bit here is
 * a change of the class's number (PORTABLE_CLASS). */
#pragma once
#include <stdint.h>
#include <string.h>

#define PORTABLE_CLASS "portable-1"

#ifdef __CUDACC__
#define PORTABLE static __host__ __device__ __forceinline__
#else
#define PORTABLE static inline
#endif

PORTABLE uint32_t portable_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

PORTABLE float portable_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

/* The one NaN that is ever a result: what arithmetic makes of its own has other bits on other machines. */
PORTABLE float portable_nan(void)
{
    return portable_float(0x7fc00000);
}

PORTABLE uint64_t portable_bits_double(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

PORTABLE double portable_double(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

/* ---- float32 ------------------------------------------------------------------------------------------ */

/* a b + c, rounded once, for machines without the instruction. The product is exact in double. The sum is rounded to odd: where it is inexact, the
 * neighbour with an odd last bit stands for it, so that rounding to float sees on which side of a tie the exact sum lies (Boldo, Melquiond 2008). */
PORTABLE float portable_fma_soft(float a, float b, float c)
{
    double p = (double)a * b, s = p + c, back = s - p, rest = (p - (s - back)) + (c - back);
    uint64_t u = portable_bits_double(s);
    if (s - s == 0 && rest != 0 && !(u & 1))
        u += (rest > 0) == (s > 0) ? 1 : (uint64_t)-1;
    return (float)portable_double(u);
}

PORTABLE float portable_fma(float a, float b, float c)
{
#if defined(__CUDACC__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__FP_FAST_FMAF)
    return __builtin_fmaf(a, b, c);
#else
    return portable_fma_soft(a, b, c);
#endif
}

/* e^x within 2 units in the last place for -87 <= x <= 88.37; x beyond is taken as the nearer end, NaN gives NaN. Written for vectorising
 * compilers: x = n ln2 + r, |r| <= ln2 / 2, e^r by a polynomial (least greatest relative error on that range: 3e-9), 2^n through the
 * exponent bits. */
PORTABLE float portable_exp(float x)
{
    const float shift = 0x1.8p23f; /* adding it rounds to an integer, kept in the low mantissa bits */
    float clamped = x < -87.0f ? -87.0f : x;
    clamped = clamped > 88.37f ? 88.37f : clamped;
    float t = clamped * 0x1.715476p0f + shift, n = t - shift;
    float r = clamped - n * 0x1.63p-1f; /* ln2 in two parts; the first has few bits, so the product is exact */
    r = r + n * 0x1.bd0106p-13f;
    float p = 0x1.6a23cep-10f;
    p = p * r + 0x1.123a2p-7f;
    p = p * r + 0x1.5558f2p-5f;
    p = p * r + 0x1.555492p-3f;
    p = p * r + 0x1.fffffcp-2f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * portable_float((portable_bits(t) + 127) << 23);
}

PORTABLE float portable_silu(float x)
{
    return x / (1.0f + portable_exp(-x));
}

/* log(1 + e^y) within a few units of the last place: max(y, 0) + log(1 + u), u = e^-|y|, and log(1 + u) = 2 atanh(s), s = u / (2 + u) <= 1/3,
 * by its series in s^2. */
PORTABLE float portable_softplus(float y)
{
    float u = portable_exp(y < 0 ? y : -y), s = u / (2.0f + u), q = s * s, p = 2.0f / 15;
    p = p * q + 2.0f / 13;
    p = p * q + 2.0f / 11;
    p = p * q + 2.0f / 9;
    p = p * q + 2.0f / 7;
    p = p * q + 2.0f / 5;
    p = p * q + 2.0f / 3;
    p = p * q + 2.0f;
    return (y > 0 ? y : 0) + s * p;
}

/* 2^x of a Mamba state's decay, x <= 0, within 2e-7 of itself; what is below 2^-126 is taken for that, NaN too. x = n + f with |f| <= 1/2, a minimax
 * polynomial of 2^f, and n through the exponent's bits. */
PORTABLE float portable_decay(float x)
{
    const float shift = 0x1.8p23f;
    x = x > -126.0f ? x : -126.0f;
    float t = x + shift, f = x - (t - shift), p = f * 0x1.41d334p-13f + 0x1.5f456ap-10f;
    p = p * f + 0x1.3b2dbcp-7f;
    p = p * f + 0x1.c6aed4p-5f;
    p = p * f + 0x1.ebfbdap-3f;
    p = p * f + 0x1.62e430p-1f;
    p = p * f + 1.0f;
    return portable_float(portable_bits(p) + (portable_bits(t) << 23));
}

/* 2^x of attention's weights within 2e-8 of itself before rounding, for x < 127.5; below -126 it is 2^-126. NaN stays NaN. The same polynomial, fused. */
PORTABLE float portable_exp2(float x)
{
    const float shift = 0x1.8p23f;
    x = x < -126.0f ? -126.0f : x;
    float t = x + shift, n = t - shift, f = x - n, p = 0x1.41d334p-13f;
    p = portable_fma(p, f, 0x1.5f456ap-10f);
    p = portable_fma(p, f, 0x1.3b2dbcp-7f);
    p = portable_fma(p, f, 0x1.c6aed4p-5f);
    p = portable_fma(p, f, 0x1.ebfbdap-3f);
    p = portable_fma(p, f, 0x1.62e430p-1f);
    p = portable_fma(p, f, 1.0f);
    return p * portable_float((portable_bits(t) + 127) << 23);
}

/* ---- double: what is taken once a row or once a table ------------------------------------------------- */

/* e^x within 2 units in the last place; 0 below -708, and what is above 709 is taken for that. x = n ln2 + r, Taylor's series of e^r to the 13th power. */
PORTABLE double portable_exp_double(double x)
{
    const double shift = 0x1.8p52;
    if (!(x > -708))
        return x == x ? 0 : x;
    x = x > 709 ? 709 : x;
    double t = x * 0x1.71547652b82fep0 + shift, n = t - shift;
    double r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33; /* ln2 in two parts; the first product is exact */
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * portable_double((portable_bits_double(t) + 1023) << 52);
}

/* log(x) of a positive normal number within 2 units in the last place (1e-16 near 1). x = 2^e m with m in (2^-1/2, 2^1/2],
 * log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| <= 0.172, by its series to the 21st power. */
PORTABLE double portable_log_double(double x)
{
    uint64_t u = portable_bits_double(x);
    int e = (int)(u >> 52) - 1023;
    double m = portable_double((u & 0xfffffffffffff) | (uint64_t)1023 << 52);
    if (m > 0x1.6a09e667f3bcdp0) {
        m = m * 0.5;
        e = e + 1;
    }
    double s = (m - 1) / (m + 1), q = s * s, p = 2.0 / 21;
    p = p * q + 2.0 / 19;
    p = p * q + 2.0 / 17;
    p = p * q + 2.0 / 15;
    p = p * q + 2.0 / 13;
    p = p * q + 2.0 / 11;
    p = p * q + 2.0 / 9;
    p = p * q + 2.0 / 7;
    p = p * q + 2.0 / 5;
    p = p * q + 2.0 / 3;
    return e * 0x1.62e42feep-1 + (s * (p * q) + (e * 0x1.a39ef35793c76p-33 + 2 * s));
}

/* 1 / (1 + e^-z), rounded to float at the end. */
PORTABLE float portable_sigmoid(double z)
{
    return (float)(1.0 / (1.0 + portable_exp_double(-z)));
}

/* Sine and cosine of a number of 0 to 2^24, within 1e-9 there and 1.2e-16 up to 2^20: x = n pi/2 + r, pi/2 in three parts of which the first two products are exact
 * up to 2^20, then the polynomials of fdlibm's k_sin.c and k_cos.c. */
PORTABLE void portable_sin_cos(double x, double *ret_sin, double *ret_cos)
{
    const double shift = 0x1.8p52;
    double t = x * 0x1.45f306dc9c883p-1 + shift, n = t - shift;
    double r = ((x - n * 0x1.921fb544p0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69, q = r * r;
    double s = 1.58969099521155010221e-10, c = -1.13596475577881948265e-11;
    s = s * q - 2.50507602534068634195e-08;
    s = s * q + 2.75573137070700676789e-06;
    s = s * q - 1.98412698298579493134e-04;
    s = s * q + 8.33333333332248946124e-03;
    s = s * q - 1.66666666666666324348e-01;
    s = r + r * (s * q);
    c = c * q + 2.08757232129817482790e-09;
    c = c * q - 2.75573143513906633035e-07;
    c = c * q + 2.48015872894767294178e-05;
    c = c * q - 1.38888888888741095749e-03;
    c = c * q + 4.16666666666666019037e-02;
    c = 1 - (0.5 * q - q * q * c);
    uint64_t quarter = portable_bits_double(t) & 3;
    double sine = quarter & 1 ? c : s, cosine = quarter & 1 ? s : c;
    *ret_sin = quarter & 2 ? -sine : sine;
    *ret_cos = quarter == 1 || quarter == 2 ? -cosine : cosine;
}
