/* Scalar arithmetic shared by the ops: exp, sums in one fixed order. Everything is inline, branch-free where it can be, and means the
 * same in every file that includes it, so long as the file is compiled without contraction. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

/* e^x within 2 units in the last place; 0 below -87, infinity above 88.37; NaN gives NaN. Written for vectorising compilers:
 * x = n ln2 + r, |r| <= ln2 / 2, e^r by its Taylor series of degree 7 (the remainder is below 6e-9), 2^n through the exponent bits. */
static inline float exp_c(float x)
{
    const float shift = 0x1.8p23f;                       /* adding it rounds to an integer, kept in the low mantissa bits */
    float clamped = x < -87.0f ? -87.0f : x > 88.37f ? 88.37f : x;
    float t = clamped * 0x1.715476p0f + shift, n = t - shift;
    float r = clamped - n * 0x1.63p-1f;                  /* ln2 in two parts; the first has few bits, so the product is exact */
    r = r + n * 0x1.bd0106p-13f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    uint32_t bits, scale_bits;
    memcpy(&bits, &t, 4);
    scale_bits = (bits + 127) << 23;
    float scale;
    memcpy(&scale, &scale_bits, 4);
    float e = p * scale;
    e = x < -87.0f ? 0.0f : e;
    e = x > 88.37f ? INFINITY : e;
    return x != x ? x : e;
}

static inline float silu_c(float x) { return x / (1.0f + exp_c(-x)); }

enum { SUM_LANES = 16 };

static inline float sum_lanes(const float lane[SUM_LANES])
{
    float s[SUM_LANES];
    memcpy(s, lane, sizeof(s));
    for (int half = SUM_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    return s[0];
}

/* 1 / sqrt(mean(x^2) + eps) of x[d]; the squares are summed in SUM_LANES interleaved parts. */
static inline float rms_scale_c(const float *x, int d, float eps)
{
    float lane[SUM_LANES] = {0};
    int i = 0;
    for (; i + SUM_LANES <= d; i += SUM_LANES)
        for (int l = 0; l < SUM_LANES; l++)
            lane[l] += x[i + l] * x[i + l];
    for (int l = 0; i + l < d; l++)
        lane[l] += x[i + l] * x[i + l];
    return 1.0f / sqrtf(sum_lanes(lane) / (float)d + eps);
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
