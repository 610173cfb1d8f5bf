/* Scalar arithmetic shared by the ops: exp, sums in one fixed order. Everything is inline, branch-free where it can be, and means the
 * same in every file that includes it, so long as the file is compiled without contraction. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

/* e^x within 2 units in the last place for -87 <= x <= 88.37; x beyond is taken as the nearer end, NaN gives NaN. Written for vectorising
 * compilers: x = n ln2 + r, |r| <= ln2 / 2, e^r by a polynomial (least greatest relative error on that range: 3e-9), 2^n through the
 * exponent bits. */
static inline float exp_c(float x)
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
    uint32_t bits;
    memcpy(&bits, &t, 4);
    bits = (bits + 127) << 23;
    float scale;
    memcpy(&scale, &bits, 4);
    return p * scale;
}

static inline float silu_c(float x)
{
    return x / (1.0f + exp_c(-x));
}

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

static inline void lanes_add_scaled(struct lanes *sum, struct lanes a, float f)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] += a.v[i] * f;
}

static inline void lanes_add_squares(struct lanes *sum, struct lanes a)
{
    for (int i = 0; i < SUM_LANES * 4 / VECTOR_BYTES; i++)
        sum->v[i] += a.v[i] * a.v[i];
}

static inline float lanes_sum(const struct lanes *sum)
{
    float s[SUM_LANES];
    memcpy(s, sum, sizeof(s));
    for (int half = SUM_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            s[l] += s[l + half];
    return s[0];
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
