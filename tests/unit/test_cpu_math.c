#include "kernels/cpu/cpu_math.h"
#include "tests/check.h"

static void exponential(void)
{
    double worst = 0;
    for (float x = -87; x <= 88.37f; x += 0.00037f) {
        double want = exp((double)x), off = fabs(portable_exp(x) - want) / want;
        worst = off > worst ? off : worst;
    }
    CHECK(worst < 2 * 0x1p-23);
    CHECK(portable_exp(0) == 1);
    CHECK(isnan(portable_exp(NAN)));
    CHECK(portable_exp(-INFINITY) >= 0 && portable_exp(-INFINITY) < 1e-37f);
    CHECK(portable_exp(-1000) == portable_exp(-87) && portable_exp(1000) == portable_exp(88.37f) && isfinite(portable_exp(1000)));
}

static void silu(void)
{
    for (float x = -120; x < 120; x += 0.0031f) {
        double want = x / (1 + exp(-(double)x));
        CHECK(fabs(portable_silu(x) - want) <= 3e-7 * fabs(want) + 1e-36);
    }
    CHECK(portable_silu(0) == 0);
    CHECK(isnan(portable_silu(NAN)));
    CHECK(portable_silu(INFINITY) == INFINITY);
}

static void sums(void)
{
    enum { MAX = 100 };
    float x[MAX], y[MAX];
    for (int i = 0; i < MAX; i++) {
        x[i] = sinf((float)i);
        y[i] = cosf(3 * (float)i);
    }
    for (int n = 1; n <= MAX; n++) {
        double dot = 0, square = 0;
        for (int i = 0; i < n; i++) {
            dot += (double)x[i] * y[i];
            square += (double)x[i] * x[i];
        }
        CHECK(fabs(dot_double(x, y, n) - dot) < 1e-12);
        CHECK(fabs(rms_scale_c(x, n, 1e-5f) * sqrt(square / n + 1e-5f) - 1) < 1e-6);
    }
}

int main(void)
{
    exponential();
    silu();
    sums();
    return check_result();
}
