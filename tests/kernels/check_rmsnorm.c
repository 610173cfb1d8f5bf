#include "tests/check/harness.h"
#include <math.h>

enum { X, Y, Z, ARRAYS };
enum form { PLAIN, BOTH, IN_PLACE, FORMS }; /* without z, with it, with z in the place of x */
struct arg {
    enum form form;
    int d;
    float eps, *w; /* host */
    void *dev_w;
};

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    struct dev_f32 *z = a->form == PLAIN ? NULL : a->form == BOTH ? dev[Z] : dev[X];
    return c->k->ops->rmsnorm(c->k, dev[Y], z, dev[X], a->dev_w, rows, a->d, a->eps);
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    const float *x = in[X];
    double sum = 0;
    for (int i = 0; i < a->d; i++)
        sum += (double)x[i] * x[i];
    for (int i = 0; i < a->d; i++)
        for (int j = X; j < ARRAYS; j++)
            if (out[j])
                out[j][i] = x[i] / sqrt(sum / a->d + a->eps) * a->w[i];
}

static void one(struct check *c, enum form form, int n, int d, double size)
{
    struct arg a = {.form = form, .d = d, .eps = 1e-5f, .w = check_floats(c, d, -2, 2)};
    char what[64];
    snprintf(what, sizeof(what), "d %d size %g form %d", d, size, form);
    a.dev_w = check_up(c, a.w, d * sizeof(float));
    struct check_array arrays[ARRAYS] = {
        [X] = {.name = "x",
               .use = form == IN_PLACE ? CHECK_INOUT : CHECK_IN,
               .type = CHECK_F32,
               .host = check_floats(c, (size_t)n * d, -size, size)},
        [Y] = {.name = "y", .use = CHECK_OUT, .type = CHECK_ACT, .host = check_fill(c, CHECK_ACT, (size_t)n * d, -1, 1)},
        [Z] = {.name = "z", .use = form == BOTH ? CHECK_OUT : CHECK_IN, .type = CHECK_F32, .host = check_floats(c, (size_t)n * d, -1, 1)},
    };
    for (int i = 0; i < ARRAYS; i++) {
        arrays[i].cols = d;
        arrays[i].abs = 1e-12;
        arrays[i].rel = 2e-6;
    }
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run, .want = want, .arg = &a});
    check_arrays_done(arrays, ARRAYS);
    check_drop(c, a.dev_w);
    free(a.w);
}

void check_rmsnorm(struct check *c)
{
    static const int widths[] = {1, 2, 8, 15, 16, 17, 63, 96, 128, 129, 384, 480, 960};
    if (c->bench) {
        one(c, PLAIN, 512, 384, 1);
        one(c, PLAIN, 512, 960, 1);
        return;
    }
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        for (int n = 0; n <= 40; n = n * 3 + 1)
            one(c, (enum form)(i % FORMS), n, widths[i], i % 4 == 0 ? 1e-3 : i % 4 == 1 ? 1 : 300);
}
