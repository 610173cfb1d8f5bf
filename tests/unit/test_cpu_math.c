#include "kernels/cpu/cpu_math.h"
#include "tests/check.h"

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
    sums();
    return check_result();
}
