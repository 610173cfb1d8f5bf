/* matmul_bypass. */
#include "tests/check/harness.h"

struct arg {
    int d;
    struct kern_heads hs;
    float *w, *b; /* [hk*hd,d], [hk*hd] as the op must use them */
    struct kern_matrix *matrix;
};

static int run_bypass(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->matmul_bypass(c->k, &a->hs, dev[2], dev[1], dev[0], a->matrix, a->d, rows);
}

static void want_bypass(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    const struct kern_heads *hs = &a->hs;
    int qk = (hs->h + hs->hk) * hs->hd, group = hs->h / hs->hk;
    for (int i = 0; i < qk; i++)
        out[1][i] = check_get(c, CHECK_ACT, in[1], i);
    for (int i = 0; i < hs->hk * hs->hd; i++) {
        double v = a->b[i];
        for (int j = 0; j < a->d; j++)
            v += check_get(c, CHECK_ACT, in[0], j) * a->w[(size_t)i * a->d + j];
        out[1][qk + i] = v;
        for (int g = 0; g < group; g++)
            out[2][(i / hs->hd * group + g) * hs->hd + i % hs->hd] = v;
    }
}

static void make_values(struct check *c, struct arg *a)
{
    int n = a->hs.hk * a->hs.hd;
    size_t size = (size_t)n * a->d;
    void *stored = malloc(size * dtype_size(c->act));
    struct err err = {0};
    a->w = check_floats(c, size, -1, 1);
    a->b = check_floats(c, n, -1, 1);
    dtype_from_f32(stored, c->act, a->w, size);
    dtype_to_f32(a->w, stored, c->act, size);
    struct matrix_part part = {stored, c->act, n, a->b, DTYPE_F32};
    if (c->k->ops->matrix_new(c->k, MATRIX_LINEAR, &part, 1, a->d, &a->matrix, &err) < 0)
        check_fail(c, "matmul_bypass", "%s", err.text);
    free(stored);
}

static void bypass(struct check *c, int n, int h, int hk, int hd, int d)
{
    struct arg a = {.d = d, .hs = {.h = h, .hk = hk, .hd = hd}};
    int width = (h + 2 * hk) * hd;
    double tolerance = 1e-6 + 6e-8 * d;
    char what[64];
    snprintf(what, sizeof(what), "bypass %d/%d x %d of %d", h, hk, hd, d);
    make_values(c, &a);
    struct check_array arrays[] = {
        {.name = "xn", .use = CHECK_IN, .type = CHECK_ACT, .cols = d, .host = check_fill(c, CHECK_ACT, (size_t)n * d, -1, 1)},
        {.name = "qkv",
         .use = CHECK_OUT,
         .type = CHECK_ACT,
         .cols = width,
         .abs = tolerance,
         .rel = 2e-6,
         .host = check_fill(c, CHECK_ACT, (size_t)n * width, -3, 3)},
        {.name = "out",
         .use = CHECK_OUT,
         .type = CHECK_ACT,
         .cols = h * hd,
         .abs = tolerance,
         .rel = 2e-6,
         .host = check_fill(c, CHECK_ACT, (size_t)n * h * hd, -3, 3)},
    };
    check_rows(c, &(struct check_op){.what = what,
                                     .arrays = arrays,
                                     .n_arrays = 3,
                                     .n = n,
                                     .run = run_bypass,
                                     .want = want_bypass,
                                     .arg = &a,
                                     .flops_per_row = 2.0 * hk * hd * d});
    check_arrays_done(arrays, 3);
    c->k->ops->matrix_free(c->k, a.matrix);
    free(a.w);
    free(a.b);
}

void check_matmul_bypass(struct check *c)
{
    if (c->bench) {
        bypass(c, 512, 15, 5, 64, 960);
        return;
    }
    for (int n = 0; n <= 40; n = n * 3 + 1) {
        bypass(c, n, 6, 2, 24, 40);
        bypass(c, n, 4, 1, 8, 31);
        bypass(c, n, 3, 3, 64, 128);
    }
    if (c->many_tiles) /* several tiles */
        bypass(c, 700, 15, 5, 64, 64);
}
