/* route_mlp, route_mod, route_dllm. A decision may differ only where the reference's probability is within MARGIN of 0.5. */
#include "tests/check/harness.h"
#include <math.h>

#define MARGIN 4e-6

enum family { DTRNET, MOD, DLLM, FAMILIES };
static const char *const names[FAMILIES] = {"dtrnet", "mod", "dllm"};
enum { FORCED = 2 };

struct arg {
    enum family family;
    int m, d; /* d: columns of x; m but for DTRNET, whose hidden values are W1 x + b1 */
    float *w1, *b1;
    struct kern_matrix *matrix;
    float *w, *b, *norm; /* host */
    void *dev_w, *dev_b, *dev_norm, *dev_threshold;
    enum decision below, above;
    bool has_threshold, no_extras; /* of DTRNET; no_extras: neither gate nor margin is wanted */
    float threshold;
    void *packed_x, *packed_hid; /* of DTRNET; NULL: x is by step row */
};

enum { X, POS, HID, ROUTE, GATE, PROB, MARGINS, ARRAYS };

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    const struct kern_ops *o = c->k->ops;
    const struct route_out to = {.route = dev[ROUTE],
                                 .gate = a->no_extras ? NULL : dev[GATE],
                                 .prob = dev[PROB],
                                 .below = a->below,
                                 .above = a->above,
                                 .threshold = a->has_threshold ? a->dev_threshold : NULL,
                                 .margin = a->no_extras ? NULL : dev[MARGINS]};
    if (a->family == DTRNET) {
        struct route_mlp mlp = {a->matrix, a->dev_w, a->dev_b, a->m, a->packed_x ? a->packed_hid : dev[HID], a->packed_x};
        int r = a->packed_x ? o->gather_rows(c->k, a->packed_x, dev[X], a->d, rows) : 0;
        return r < 0 ? r : o->route_mlp(c->k, &to, &mlp, a->packed_x ? a->packed_x : dev[X], rows);
    }
    if (a->family == MOD)
        return o->route_mod(c->k, &to, dev[X], a->dev_w, a->dev_b, a->m, rows);
    const struct route_dllm dllm = {a->dev_norm, 1e-5f, a->dev_w, a->dev_b, a->m, FORCED};
    return o->route_dllm(c->k, &to, &dllm, dev[X], dev[POS], rows);
}

static double sigmoid(double z)
{
    return 1 / (1 + exp(-z));
}

static double hidden(const struct arg *a, const float *x, int i)
{
    if (a->family != DTRNET)
        return x[i];
    double h = a->b1[i];
    for (int j = 0; j < a->d; j++)
        h += (double)a->w1[(size_t)i * a->d + j] * x[j];
    return h;
}

static void logits(const struct arg *a, const float *x, double z[2])
{
    double square = 0;
    for (int i = 0; i < a->m && a->family == DLLM; i++)
        square += (double)x[i] * x[i];
    z[0] = a->b[0];
    z[1] = a->b[1];
    for (int i = 0; i < a->m; i++) {
        double h = hidden(a, x, i);
        if (a->family == DLLM)
            h *= a->norm[i] / sqrt(square / a->m + 1e-5);
        for (int j = 0; j < 2; j++)
            z[j] += a->w[j * a->m + i] * (a->family == MOD ? h : h * sigmoid(h));
    }
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    double z[2];
    logits(a, in[X], z);
    double margin = z[0] - z[1], p0 = sigmoid(a->family == MOD ? z[0] : margin), p = a->family == DLLM ? 1 - p0 : p0;
    bool forced = a->family == DLLM && *(const int *)in[POS] < FORCED, route = p > 0.5 || forced, near = fabs(p - 0.5) < MARGIN && !forced;
    if (a->has_threshold) {
        route = margin > a->threshold;
        near = fabs(margin - a->threshold) < 4 * MARGIN;
    }
    out[PROB][0] = p;
    for (int i = 0; i < a->m; i++)
        out[HID][i] = NAN;
    out[ROUTE][0] = near ? NAN : route ? a->above : a->below;
    if (out[GATE])
        out[GATE][0] = a->family == MOD ? sigmoid(z[1]) : near ? NAN : route ? p0 : 1 - p0;
    if (out[MARGINS])
        out[MARGINS][0] = margin;
}

/* DTRNET's first matrix. */
static void make_first(struct check *c, struct arg *a, enum dtype type)
{
    size_t n = (size_t)a->m * a->d;
    double top = 2 / sqrt(a->d);
    void *stored = malloc(n * dtype_size(type));
    struct err err = {0};
    a->w1 = check_floats(c, n, -top, top);
    a->b1 = check_floats(c, a->m, -1, 1);
    dtype_from_f32(stored, type, a->w1, n);
    dtype_to_f32(a->w1, stored, type, n);
    struct matrix_part part = {stored, type, a->m, a->b1, DTYPE_F32};
    if (c->k->ops->matrix_new(c->k, MATRIX_ACCURATE, &part, 1, a->d, &a->matrix, &err) < 0)
        check_fail(c, "route_mlp", "%s", err.text);
    free(stored);
}

/* first: how the first matrix is stored; batches: of check_op. */
static void one_of(struct check *c, enum family f, int n, int m, enum dtype first, const int *batches)
{
    struct arg a = {.family = f,
                    .m = m,
                    .d = f == DTRNET ? 2 * m : m,
                    .w = check_floats(c, 2 * (size_t)m, -0.3, 0.3),
                    .b = check_floats(c, 2, -0.2, 0.2),
                    .norm = check_floats(c, m, 0.5, 1.5),
                    .below = check_int(c, DECISION_SKIP, DECISION_LINEAR),
                    .has_threshold = f == DTRNET && check_int(c, 0, 1),
                    .no_extras = f == DTRNET && !check_int(c, 0, 3),
                    .threshold = (float)check_real(c, -0.5, 0.5)};
    a.above = check_int(c, a.below + 1, DECISION_ATTEND);
    char what[64];
    snprintf(what, sizeof(what), "%s m %d", names[f], m);
    a.dev_w = check_up(c, a.w, sizeof(float) * 2 * m);
    a.dev_b = check_up(c, a.b, sizeof(float) * 2);
    a.dev_norm = check_up(c, a.norm, sizeof(float) * m);
    a.dev_threshold = check_up(c, &a.threshold, sizeof(float));
    if (f == DTRNET)
        make_first(c, &a, first);
    if (f == DTRNET && check_int(c, 0, 1)) {
        int most = 2 * n + 1; /* rows of the largest set that check_rows makes */
        float *any = check_floats(c, (size_t)most * a.d, -1, 1);
        a.packed_x = check_up(c, any, sizeof(float) * most * a.d);
        a.packed_hid = check_up(c, any, sizeof(float) * most * m);
        free(any);
    }
    double tolerance = 1e-6 + 1e-8 * m;
    struct check_array arrays[ARRAYS] = {
        [X] = {.name = "x", .use = CHECK_IN, .type = CHECK_F32, .cols = a.d, .host = check_floats(c, (size_t)n * a.d, -4, 4)},
        [POS] = {.name = "pos", .use = CHECK_IN, .type = CHECK_I32, .cols = 1, .host = check_fill(c, CHECK_I32, n, 0, 6)},
        [HID] = {.name = "hid", .use = CHECK_OUT, .type = CHECK_F32, .cols = m, .host = check_floats(c, (size_t)n * m, -1, 1)},
        [ROUTE] = {.name = "route", .use = CHECK_OUT, .type = CHECK_U8, .cols = 1, .host = check_fill(c, CHECK_U8, n, 2, 9)},
        [GATE] = {.name = "gate",
                  .use = f == DLLM || a.no_extras ? CHECK_IN : CHECK_OUT,
                  .type = CHECK_F32,
                  .cols = 1,
                  .abs = tolerance,
                  .host = check_floats(c, n, 2, 3)},
        [PROB] = {.name = "prob", .use = CHECK_OUT, .type = CHECK_F32, .cols = 1, .abs = tolerance, .host = check_floats(c, n, 2, 3)},
        [MARGINS] = {.name = "margin",
                     .use = f == DTRNET && !a.no_extras ? CHECK_OUT : CHECK_IN,
                     .type = CHECK_F32,
                     .cols = 1,
                     .abs = 4 * tolerance,
                     .rel = 1e-6,
                     .host = check_floats(c, n, 2, 3)},
    };
    check_rows(c, &(struct check_op){
                      .what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run, .want = want, .arg = &a, .batches = batches});
    check_arrays_done(arrays, ARRAYS);
    void *dev[] = {a.dev_w, a.dev_b, a.dev_norm, a.dev_threshold, a.packed_x, a.packed_hid};
    for (int i = 0; i < (a.packed_x ? 6 : 4); i++)
        check_drop(c, dev[i]);
    c->k->ops->matrix_free(c->k, a.matrix);
    free(a.w1);
    free(a.b1);
    free(a.w);
    free(a.b);
    free(a.norm);
}

/* The first matrix in bf16, as it is published, or in float32. */
static void one(struct check *c, enum family f, int n, int m)
{
    one_of(c, f, n, m, check_int(c, 0, 1) ? DTYPE_BF16 : DTYPE_F32, NULL);
}

static void family(struct check *c, enum family f)
{
    static const int widths[] = {1, 7, 8, 32, 48, 192, 255, 257, 480, 512};
    if (c->bench) {
        one(c, f, 512, f == MOD ? 960 : 480);
        return;
    }
    for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
        for (int n = 0; n <= 50; n = n * 4 + 1)
            one(c, f, n, widths[i]);
}

void check_route_mod(struct check *c)
{
    family(c, MOD);
}

void check_route_dllm(struct check *c)
{
    family(c, DLLM);
}

void check_route_mlp(struct check *c)
{
    /* at both ends of a tile of few rows, of several, and of the kernel for few rows, whose bits those of more rows must be */
    static const int batches[] = {1, 15, 16, 17, 64, 127, 128, 129, 200, 0};
    family(c, DTRNET);
    if (!c->many_tiles)
        return;
    one(c, DTRNET, 300, 200); /* several tiles of rows and columns */
    for (int i = 0; i < 2 && !c->bench; i++) {
        enum dtype first = i ? DTYPE_F32 : DTYPE_BF16;
        one_of(c, DTRNET, 100, 200, first, NULL); /* a count on the device that leaves tiles of few rows empty */
        one_of(c, DTRNET, 130, 200, first, batches);
        one_of(c, DTRNET, 130, 600, first, batches); /* more of k than a kernel takes at once */
    }
    if (!c->bench)
        one(c, DTRNET, 17, 2120); /* more tiles of columns than a warp has lanes */
}
