/* copy_rows, gather_rows and blend. */
#include "tests/check/harness.h"
#include <math.h>

struct arg {
    int d;
    enum blend_mode mode;
};

static int run_copy(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->copy_rows(c->k, dev[1], dev[0], a->d, rows);
}

static void want_copy(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    for (int i = 0; i < a->d; i++)
        out[1][i] = ((const float *)in[0])[i];
}

static int run_blend(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    return c->k->ops->blend(c->k, dev[1], dev[0], dev[2], a->mode, a->d, rows);
}

static void want_blend(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    const float *x0 = in[0], *x = in[1], *gate = in[2];
    for (int i = 0; i < a->d; i++)
        out[1][i] = x0[i] + (double)gate[0] * (a->mode == BLEND_ADD ? x[i] : (double)x[i] - x0[i]);
}

/* x0 and x [n,d] and a gate: what copy_rows and blend take. */
static void one(struct check *c, const char *name, const struct check_op *of, int n, int d)
{
    struct arg a = {.d = d, .mode = check_int(c, BLEND_ADD, BLEND_TOWARDS)};
    char what[64];
    struct check_array arrays[] = {
        {.name = "x0", .use = CHECK_IN, .type = CHECK_F32, .cols = d, .host = check_floats(c, (size_t)n * d, -3, 3)},
        {.name = "x",
         .use = CHECK_INOUT,
         .type = CHECK_F32,
         .cols = d,
         .abs = 1e-6,
         .rel = 1e-6,
         .host = check_floats(c, (size_t)n * d, -3, 3)},
        {.name = "gate", .use = CHECK_IN, .type = CHECK_F32, .cols = 1, .host = check_floats(c, n, 0, 1)},
    };
    snprintf(what, sizeof(what), "%s d %d", name, d);
    check_rows(c, &(struct check_op){.what = what, .arrays = arrays, .n_arrays = 3, .n = n, .run = of->run, .want = of->want, .arg = &a});
    check_arrays_done(arrays, 3);
}

static void rows_of_floats(struct check *c, const char *name, const struct check_op *of)
{
    if (c->bench) {
        one(c, name, of, 512, 960);
        return;
    }
    for (int n = 0; n <= 40; n = n * 3 + 1)
        for (int d = 1; d < 400; d = d * 2 + 3)
            one(c, name, of, n, d);
}

static void gather(struct check *c, int n, int d)
{
    float *src = check_floats(c, (size_t)n * d, -1, 1), *got = calloc((size_t)n * d + 1, sizeof(float)),
          *before = calloc((size_t)n * d + 1, 4);
    int *idx = calloc(n + 1, sizeof(int)), m = 0;
    for (int r = 0; r < n; r++)
        if (check_int(c, 0, 2))
            idx[m++] = r;
    void *dev_src = check_up(c, src, sizeof(float) * n * d), *dev_dst = check_up(c, before, sizeof(float) * n * d);
    void *dev_idx = check_up(c, idx, sizeof(int) * n), *dev_m = check_up(c, &m, sizeof(int));
    c->cases++;
    check_code(c, "gather_rows", c->k->ops->gather_rows(c->k, dev_dst, dev_src, d, (struct rows){dev_idx, dev_m, n}));
    check_down(c, "gather_rows", got, dev_dst, sizeof(float) * n * d);
    for (int i = 0; i < m; i++)
        if (memcmp(got + (size_t)i * d, src + (size_t)idx[i] * d, sizeof(float) * d))
            check_fail(c, "gather_rows", "row %d is not source row %d", i, idx[i]);
    if (memcmp(got + (size_t)m * d, before, sizeof(float) * (n - m) * d))
        check_fail(c, "gather_rows", "wrote past its %d rows", m);
    void *all[] = {dev_src, dev_dst, dev_idx, dev_m};
    for (int i = 0; i < 4; i++)
        check_drop(c, all[i]);
    free(src);
    free(got);
    free(before);
    free(idx);
}

void check_copy_rows(struct check *c)
{
    rows_of_floats(c, "copy_rows", &(struct check_op){.run = run_copy, .want = want_copy});
}

void check_blend(struct check *c)
{
    rows_of_floats(c, "blend", &(struct check_op){.run = run_blend, .want = want_blend});
}

void check_gather_rows(struct check *c)
{
    for (int n = 0; n <= 40 && !c->bench; n = n * 3 + 1)
        gather(c, n, 17);
}
