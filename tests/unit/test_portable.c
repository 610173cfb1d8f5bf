/* The functions of portable-1: how close they are to the C library's in double, what they do at the ends, and that their bits are the ones that stand
 * here, whatever compiled them. */
#include "kernels/portable.h"
#include "tests/check.h"
#include <math.h>

static uint64_t hash_of(uint64_t hash, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state, double low, double high)
{
    return low + (high - low) * ((double)(next(state) >> 11) * 0x1p-53);
}

/* ---- functions of one number ---- */

static double of_exp(double x)
{
    return portable_exp((float)x);
}
static double of_silu(double x)
{
    return portable_silu((float)x);
}
static double of_softplus(double x)
{
    return portable_softplus((float)x);
}
static double of_decay(double x)
{
    return portable_decay((float)x);
}
static double of_exp2(double x)
{
    return portable_exp2((float)x);
}
static double of_sigmoid(double x)
{
    return portable_sigmoid(x);
}
static double of_sin(double x)
{
    double s, c;
    portable_sin_cos(x, &s, &c);
    return s;
}
static double of_cos(double x)
{
    double s, c;
    portable_sin_cos(x, &s, &c);
    return c;
}
static double silu(double x)
{
    return x / (1 + exp(-x));
}
static double softplus(double x)
{
    return log1p(exp(-fabs(x))) + fmax(x, 0);
}
static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static const struct {
    const char *name;
    double (*got)(double), (*want)(double);
    double low, high;
    double relative, absolute; /* bounds of the error */
    bool single;               /* takes a float */
    uint64_t hash;             /* of 20,000 results */
} functions[] = {
    {"exp", of_exp, exp, -87, 88.37, 2 * 0x1p-23, 0, true, 0x4c1009ed6fb25607},
    {"silu", of_silu, silu, -120, 120, 3e-7, 1e-36, true, 0x214a355d2594a1fd},
    {"softplus", of_softplus, softplus, -80, 80, 4 * 0x1p-23, 0, true, 0x111568c2373b4af4},
    {"decay", of_decay, exp2, -126, 0, 2e-7, 0, true, 0x0a486270b6026cf4},
    {"exp2", of_exp2, exp2, -126, 127, 0x1p-24 + 3e-8, 0, true, 0x7019454f5903a719},
    {"sigmoid", of_sigmoid, sigmoid, -80, 80, 0x1p-24 + 1e-15, 0, false, 0x2b9b84171cc22bb3},
    {"exp_double", portable_exp_double, exp, -708, 709, 2 * 0x1p-52, 0, false, 0xe1f75a65c2d8dbf7},
    {"log_double", portable_log_double, log, 1e-6, 1e6, 2 * 0x1p-52, 1e-16, false, 0xf8fab291094600b8},
    {"log_double near 1", portable_log_double, log, 0.9, 1.1, 2 * 0x1p-52, 1e-16, false, 0x68f5e6eb091599af},
    {"sin", of_sin, sin, 0, 0x1p20, 0, 1.5 * 0x1p-53, false, 0xf88ab31848a44664},
    {"cos", of_cos, cos, 0, 0x1p20, 0, 1.5 * 0x1p-53, false, 0xe676e94878ceaca9},
    {"sin, far", of_sin, sin, 0x1p20, 0x1p24, 0, 1e-9, false, 0xce0cf619b342228b},
};

static void check_functions(void)
{
    for (size_t f = 0; f < sizeof(functions) / sizeof(*functions); f++) {
        uint64_t state = 7, hash = 0xcbf29ce484222325;
        double worst = 0;
        for (int i = 0; i < 20000; i++) {
            double x = uniform(&state, functions[f].low, functions[f].high);
            x = functions[f].single ? (float)x : x;
            double got = functions[f].got(x), want = functions[f].want(x);
            worst = fmax(worst, fabs(got - want) - functions[f].relative * fabs(want) - functions[f].absolute);
            hash = hash_of(hash, &got, sizeof(got));
        }
        if (!CHECK(worst <= 0))
            fprintf(stderr, "  %s is off by %g more than it may\n", functions[f].name, worst);
        if (!CHECK(hash == functions[f].hash))
            fprintf(stderr, "  the bits of %s are 0x%016llx\n", functions[f].name, (unsigned long long)hash);
    }
}

static void check_ends(void)
{
    CHECK(portable_exp(0) == 1 && isnan(portable_exp(NAN)));
    CHECK(portable_exp(-INFINITY) >= 0 && portable_exp(-INFINITY) < 1e-37f);
    CHECK(portable_exp(-1000) == portable_exp(-87) && portable_exp(1000) == portable_exp(88.37f) && isfinite(portable_exp(1000)));
    CHECK(portable_silu(0) == 0 && isnan(portable_silu(NAN)) && portable_silu(INFINITY) == INFINITY);
    CHECK(portable_exp2(0) == 1 && portable_exp2(-1000) == 0x1p-126f && isnan(portable_exp2(NAN)));
    CHECK(portable_decay(0) == 1 && portable_decay(-INFINITY) == 0x1p-126f);
    CHECK(portable_exp_double(0) == 1 && portable_exp_double(-1000) == 0 && isfinite(portable_exp_double(1000)) &&
          isnan(portable_exp_double(NAN)));
    CHECK(portable_log_double(1) == 0);
    CHECK(portable_sigmoid(0) == 0.5f && portable_sigmoid(-1000) == 0 && portable_sigmoid(1000) == 1);
}

/* ---- fused multiply-add ---- */

/* A float of any bits, finite. */
static float any_float(uint64_t *state)
{
    float x = portable_float((uint32_t)next(state));
    return x - x == 0 ? x : 1;
}

static void check_fma_of(float a, float b, float c)
{
    float got = portable_fma_soft(a, b, c), want = fmaf(a, b, c);
    if (!CHECK(portable_bits(got) == portable_bits(want) || (isnan(got) && isnan(want))))
        fprintf(stderr, "  %a * %a + %a is %a, not %a\n", (double)a, (double)b, (double)c, (double)got, (double)want);
}

/* Sums that lie beside a tie by less than double can hold, near the subnormal numbers, and any others. */
static void check_fma(void)
{
    uint64_t state = 11;
    for (int i = 0; i < 200000; i++) {
        float a = (float)uniform(&state, 1, 2), b = (float)uniform(&state, 1, 2);
        int shift = (int)(next(&state) % 80) - 60;
        check_fma_of(a, b, (float)ldexp(uniform(&state, -1, 1), shift));
        check_fma_of(ldexpf(a, -70), ldexpf(b, -70 + shift / 4), ldexpf(-b, -140));
        check_fma_of(any_float(&state), any_float(&state), any_float(&state));
        check_fma_of(1 + 0x1p-23f * (float)(next(&state) % 8), 1 + 0x1p-12f, -0x1p-24f + ldexpf(a, -100));
    }
    check_fma_of(0x1p127f, 2, -0x1p127f);
    check_fma_of(INFINITY, 1, 1);
    check_fma_of(INFINITY, 0, 1);
    check_fma_of(-0.0f, 1, 0.0f);
    check_fma_of(-0x1p-100f, 0x1p-100f, 0.0f);
}

int main(void)
{
    check_functions();
    check_ends();
    check_fma();
    return check_result();
}
