#include "tests/check/harness.h"
#include <math.h>

struct arg {
    int d;
    float eps, *w; /* host */
    void *dev_w;
};

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->rmsnorm(c->k, dev[1], dev[0], a->dev_w, rows, a->d, a->eps);
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    const float *x = in[0];
    double sum = 0;
    for (int i = 0; i < a->d; i++)
        sum += (double)x[i] * x[i];
    for (int i = 0; i < a->d; i++)
        out[1][i] = x[i] / sqrt(sum / a->d + a->eps) * a->w[i];
}

static void one(struct check *c, int n, int d, double size)
{
    struct arg a = {.d = d, .eps = 1e-5f, .w = check_floats(c, d, -2, 2)};
    char what[64];
    snprintf(what, sizeof(what), "d %d size %g", d, size);
    a.dev_w = check_up(c, a.w, d * sizeof(float));
    struct check_array arrays[] = {
        {.name = "x", .use = CHECK_IN, .type = CHECK_F32, .cols = d, .host = check_floats(c, (size_t)n * d, -size, size)},
        {.name = "y",
         .use = CHECK_OUT,
         .type = CHECK_ACT,
         .cols = d,
         .abs = 1e-12,
         .rel = 2e-6,
         .host = check_fill(c, CHECK_ACT, (size_t)n * d, -1, 1)},
    };
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = 2, .n = n, .run = run, .want = want, .arg = &a});
    check_arrays_done(arrays, 2);
    check_drop(c, a.dev_w);
    free(a.w);
}

void check_rmsnorm(struct check *c)
{
    static const int widths[] = {1, 2, 8, 15, 16, 17, 63, 96, 128, 129, 384, 480, 960};
    if (c->bench) {
        one(c, 512, 384, 1);
        one(c, 512, 960, 1);
        return;
    }
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        for (int n = 0; n <= 40; n = n * 3 + 1)
            one(c, n, widths[i], i % 3 == 0 ? 1e-3 : i % 3 == 1 ? 1 : 300);
}
