/* matmul, matmul_f32, matmul_residual, matmul_swiglu, matmul_accurate, the optional forms of three that norm their rows, and what matrix_new refuses. */
#include "tests/kernels/check_accuracy.h"
#include <math.h>

enum form { PLAIN_ACT, PLAIN_F32, RESIDUAL, SWIGLU, ACCURATE, FORMS };
static const char *const names[FORMS] = {"act", "f32", "residual", "swiglu", "accurate"};

enum { MAX_PARTS = 3 };

struct arg {
    enum form form;
    int n, k, ldx, ldy, col;
    bool gated;
    float *w, *b; /* [n,k], [n] as the op must use them; b NULL: none */
    struct kern_matrix *matrix;
};

enum { X, Y, GATE, ARRAYS };

static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    const struct arg *a = arg;
    const struct kern_ops *o = c->k->ops;
    switch (a->form) {
    case PLAIN_ACT: return o->matmul(c->k, dev[Y], a->col, a->ldy, dev[X], a->ldx, a->matrix, rows);
    case PLAIN_F32: return o->matmul_f32(c->k, dev[Y], dev[X], a->matrix, rows);
    case RESIDUAL: return o->matmul_residual(c->k, dev[Y], dev[X], a->ldx, a->matrix, a->gated ? dev[GATE] : NULL, rows);
    case SWIGLU: return o->matmul_swiglu(c->k, dev[Y], dev[X], a->matrix, rows);
    default: return o->matmul_accurate(c->k, dev[Y], dev[X], a->matrix, rows);
    }
}

static double dot(const struct arg *a, const double *x, int j)
{
    double sum = a->b ? a->b[j] : 0;
    for (int i = 0; i < a->k; i++)
        sum += x[i] * a->w[(size_t)j * a->k + i];
    return sum;
}

static void want(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    int n = a->form == SWIGLU ? a->n / 2 : a->n;
    double *x = malloc(sizeof(*x) * a->k);
    for (int i = 0; i < a->k; i++)
        x[i] = check_get(c, a->form == ACCURATE ? CHECK_F32 : CHECK_ACT, in[X], i);
    for (int j = 0; j < a->ldy; j++)
        out[Y][j] = check_get(c, a->form == PLAIN_ACT || a->form == SWIGLU ? CHECK_ACT : CHECK_F32, in[Y], j);
    for (int j = 0; j < n; j++) {
        double z = dot(a, x, j);
        if (a->form == SWIGLU)
            out[Y][j] = z / (1 + exp(-z)) * dot(a, x, j + n);
        else if (a->form == RESIDUAL)
            out[Y][j] += z * (a->gated ? ((const float *)in[GATE])[0] : 1);
        else
            out[Y][a->col + j] = z;
    }
    free(x);
}

/* Splits [n,k] into parts of different stored types, which may carry a bias each; rewrites w and b to the values that count. */
static void make_matrix(struct check *c, struct arg *a, int n_parts, bool bias, const char *what)
{
    struct matrix_part parts[MAX_PARTS];
    void *data[MAX_PARTS], *biases[MAX_PARTS];
    struct err err = {0};
    for (int i = 0, row = 0; i < n_parts; row += parts[i++].n) {
        enum dtype type = check_int(c, 0, 3) ? DTYPE_BF16 : check_int(c, 0, 2);
        int n = i < n_parts - 1 ? a->n / n_parts : a->n - row;
        size_t size = (size_t)n * a->k;
        data[i] = malloc(size * dtype_size(type));
        biases[i] = malloc(n * dtype_size(type));
        dtype_from_f32(data[i], type, a->w + (size_t)row * a->k, size);
        dtype_to_f32(a->w + (size_t)row * a->k, data[i], type, size);
        bool biased = bias && (i == 0 || check_int(c, 0, 1));
        if (bias) {
            dtype_from_f32(biases[i], type, a->b + row, n);
            dtype_to_f32(a->b + row, biases[i], type, n);
            if (!biased)
                memset(a->b + row, 0, n * sizeof(float));
        }
        parts[i] = (struct matrix_part){data[i], type, n, biased ? biases[i] : NULL, type};
    }
    static const enum matrix_kind kinds[FORMS] = {MATRIX_LINEAR, MATRIX_EMBED, MATRIX_LINEAR, MATRIX_GATE_UP, MATRIX_ACCURATE};
    if (c->k->ops->matrix_new(c->k, kinds[a->form], parts, n_parts, a->k, &a->matrix, &err) < 0)
        check_fail(c, what, "%s", err.text);
    for (int i = 0; i < n_parts; i++) {
        free(data[i]);
        free(biases[i]);
    }
    if (a->form != ACCURATE) {
        size_t size = (size_t)a->n * a->k;
        void *rounded = malloc(size * sizeof(float));
        dtype_from_f32(rounded, c->act, a->w, size);
        dtype_to_f32(a->w, rounded, c->act, size);
        free(rounded);
    }
}

/* batches: of check_op. */
static void one_of(struct check *c, enum form form, int m, int n, int k, int n_parts, bool bias, const int *batches)
{
    /* between rows of x and y, where the op has strides: whole vectors, or what spoils their alignment */
    int between = c->bench ? 0 : check_int(c, 0, 1) ? 3 : 8;
    bool act_out = form == PLAIN_ACT || form == SWIGLU, strided = form == PLAIN_ACT;
    int width = form == SWIGLU ? n / 2 : n, pad = strided ? between : 0;
    struct arg a = {form,
                    n,
                    k,
                    k + (strided || form == RESIDUAL ? between : 0),
                    width + pad,
                    pad && check_int(c, 0, 1) ? pad : 0,
                    check_int(c, 0, 1),
                    check_floats(c, (size_t)n * k, -1, 1),
                    bias ? check_floats(c, n, -2, 2) : NULL};
    char what[96];
    snprintf(what, sizeof(what), "%s n %d k %d%s", names[form], n, k, bias ? " bias" : "");
    make_matrix(c, &a, n_parts, bias, what);
    /* Products of values up to 1 are exact in f32; partial sums are of the order of sqrt(k) / 3 and each addition rounds. */
    double tolerance = 1e-6 + 6e-8 * k, scale = form == SWIGLU ? 1 + sqrt(k) : 1;
    enum check_type x_type = form == ACCURATE ? CHECK_F32 : CHECK_ACT, y_type = act_out ? CHECK_ACT : CHECK_F32;
    struct check_array arrays[ARRAYS] = {
        [X] = {.name = "x", .use = CHECK_IN, .type = x_type, .cols = a.ldx, .host = check_fill(c, x_type, (size_t)m * a.ldx, -1, 1)},
        [Y] = {.name = "y",
               .use = form == RESIDUAL ? CHECK_INOUT : CHECK_OUT,
               .type = y_type,
               .cols = a.ldy,
               .abs = tolerance * scale,
               .rel = 2e-6,
               .host = check_fill(c, y_type, (size_t)m * a.ldy, -1, 1)},
        [GATE] = {.name = "gate", .use = CHECK_IN, .type = CHECK_F32, .cols = 1, .host = check_floats(c, m, 0, 1)},
    };
    if (a.matrix)
        check_rows(c, &(struct check_op){.what = what,
                                         .arrays = arrays,
                                         .n_arrays = ARRAYS,
                                         .n = m,
                                         .run = run,
                                         .want = want,
                                         .arg = &a,
                                         .batches = batches,
                                         .flops_per_row = 2.0 * n * k});
    check_arrays_done(arrays, ARRAYS);
    c->k->ops->matrix_free(c->k, a.matrix);
    free(a.w);
    free(a.b);
}

static void one(struct check *c, enum form form, int m, int n, int k, int n_parts, bool bias)
{
    one_of(c, form, m, n, k, n_parts, bias, NULL);
}

/* A value that is not finite, as stored or once rounded, is refused wherever it lies. */
static void refusals(struct check *c)
{
    enum { N = 300, K = 33 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 6; i++) {
        float *w = check_floats(c, N * K, -1, 1), *b = check_floats(c, N, -1, 1);
        (i < 3 ? w : b)[check_int(c, 0, i < 3 ? N * K - 1 : N - 1)] = bad[i % 3];
        struct matrix_part part = {w, DTYPE_F32, N, b, DTYPE_F32};
        struct kern_matrix *m = NULL;
        struct err err = {0};
        int r = c->k->ops->matrix_new(c->k, i & 1 ? MATRIX_ACCURATE : MATRIX_LINEAR, &part, 1, K, &m, &err);
        if (r != ERR_CORRUPT || m)
            check_fail(c, "matrix_new", "%g in the %s gives %s", bad[i % 3], i < 3 ? "weights" : "bias", err_name(r));
        free(w);
        free(b);
    }
}

/* norm and product in one: 1 if there is that. */
static int run_normed(struct check *c, const struct arg *a, void *y, const struct kern_norm *norm, struct rows rows)
{
    const struct kern_ops *o = c->k->ops;
    switch (a->form) {
    case PLAIN_ACT: return o->matmul_normed ? o->matmul_normed(c->k, y, 0, a->ldy, norm, a->matrix, rows) : 0;
    case PLAIN_F32: return o->matmul_f32_normed ? o->matmul_f32_normed(c->k, y, norm, a->matrix, rows) : 0;
    case SWIGLU: return o->matmul_swiglu_normed ? o->matmul_swiglu_normed(c->k, y, norm, a->matrix, rows) : 0;
    default: return 0;
    }
}

/* The bits of the two ops, whatever row of x a row of the set is. */
static void one_normed(struct check *c, enum form form, int m, int n, int k)
{
    int width = form == SWIGLU ? n / 2 : n, order[8], back[8];
    struct arg a = {form, n, k, k, width, 0, false, check_floats(c, (size_t)n * k, -1, 1), check_floats(c, n, -2, 2)};
    char what[96];
    snprintf(what, sizeof(what), "normed %s m %d n %d k %d", names[form], m, n, k);
    make_matrix(c, &a, form == SWIGLU ? 2 : 1, true, what);
    for (int i = 0; i < m; i++) {
        order[i] = (i * 3 + 1) % m; /* m is no multiple of 3: each row once */
        back[order[i]] = i;
    }
    float *x = check_floats(c, (size_t)m * k, -3, 3), *w = check_floats(c, k, 0.5, 1.5);
    size_t row = width * check_size(c, form == PLAIN_F32 ? CHECK_F32 : CHECK_ACT);
    char *two = calloc(m, row), *in_one = calloc(m, row);
    void *dev[ARRAYS] = {[X] = check_up(c, x, m * k * check_size(c, CHECK_ACT)), [Y] = check_up(c, two, m * row)};
    void *dev_x = check_up(c, x, m * k * sizeof(*x)), *dev_w = check_up(c, w, k * sizeof(*w)),
         *dev_order = check_up(c, order, m * sizeof(int)), *y = check_up(c, two, m * row);
    const struct kern_norm norm = {.x = dev_x, .w = dev_w, .idx = dev_order, .eps = 1e-5f};
    const struct rows rows = {.n_max = m};
    check_code(c, what, c->k->ops->rmsnorm(c->k, dev[X], NULL, dev_x, dev_w, rows, k, norm.eps));
    check_code(c, what, run(c, &a, dev, rows));
    int r = run_normed(c, &a, y, &norm, rows);
    check_code(c, what, r < 0 ? r : 0);
    check_down(c, what, two, dev[Y], m * row);
    check_down(c, what, in_one, y, m * row);
    for (int i = 0; r > 0 && i < m; i++)
        if (memcmp(two + i * row, in_one + back[i] * row, row))
            check_fail(c, what, "row %d has other bits than those of norm and product", i);
    void *all[] = {dev[X], dev[Y], dev_x, dev_w, dev_order, y};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        check_drop(c, all[i]);
    c->k->ops->matrix_free(c->k, a.matrix);
    free(a.w);
    free(a.b);
    free(x);
    free(w);
    free(two);
    free(in_one);
}

static void normed(struct check *c, enum form form)
{
    static const int shapes[][2] = {{16, 8}, {66, 96}, {512, 64}, {1602, 960}, {2816, 200}, {96, 1032}, {4400, 2048}};
    static const int rows[] = {1, 2, 5, 8};
    for (size_t s = 0; c->k->ops->matmul_normed && c->k->act != DTYPE_F32 && !c->bench && s < sizeof(shapes) / sizeof(*shapes); s++)
        one_normed(c, form, rows[s % 4], shapes[s][0], shapes[s][1]);
}

static void bench(struct check *c, enum form form)
{
    static const int shapes[][3] = {{PLAIN_ACT, 1600, 960}, {RESIDUAL, 960, 960},    {SWIGLU, 5120, 960},   {RESIDUAL, 960, 2560},
                                    {ACCURATE, 480, 960},   {PLAIN_F32, 32000, 960}, {PLAIN_ACT, 640, 384}, {SWIGLU, 2048, 384},
                                    {RESIDUAL, 384, 1024},  {ACCURATE, 192, 384}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int m = 1; m <= 512 && shapes[i][0] == (int)form; m *= 8)
            one(c, form, m, shapes[i][1], shapes[i][2], form == SWIGLU ? 2 : 1, false);
}

/* A step that decodes has any number of rows, and there is code for each of few. */
static void every_batch(struct check *c, enum form form)
{
    enum { MOST = 33 };
    int batches[MOST + 1] = {0};
    for (int i = 0; i < MOST; i++)
        batches[i] = i + 1;
    one_of(c, form, MOST, 66, 385, form == SWIGLU ? 2 : 1, true, batches);
}

static void check_form(struct check *c, enum form form)
{
    static const int shapes[][2] = {{2, 1}, {6, 8}, {16, 16}, {34, 31}, {66, 65}, {128, 64}, {258, 96}, {512, 33}, {770, 160}, {96, 385}};
    static const int rows[] = {0, 1, 2, 3, 5, 9, 32, 33, 70};
    if (c->bench) {
        bench(c, form);
        return;
    }
    for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++)
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
            if (i % 3 == s % 3 || s % 2)
                one(c, form, rows[i], shapes[s][0], shapes[s][1], form == SWIGLU ? 2 : 1 + (int)(i % 2), check_int(c, 0, 1));
    every_batch(c, form);
    one(c, form, 34, 66, 2561, form == SWIGLU ? 2 : 1, false); /* a sum longer than a kernel takes at once */
    one(c, form, 3, 1602, 960, form == SWIGLU ? 2 : 1, true);
    if (c->many_tiles)
        one(c, form, 70, 5200, 72, form == SWIGLU ? 2 : 1, true); /* few rows of many tiles */
    if (c->many_tiles)                                            /* every tile shape, over several tiles */
        for (int wide = 0; wide < 2; wide++)
            one(c, form, 1500, wide ? 2816 : 520, wide ? 64 : 200, form == SWIGLU ? 2 : 1, wide);
}

void check_matmul(struct check *c)
{
    check_form(c, PLAIN_ACT);
    normed(c, PLAIN_ACT);
    if (!c->bench)
        refusals(c);
}

void check_matmul_f32(struct check *c)
{
    check_form(c, PLAIN_F32);
    normed(c, PLAIN_F32);
    if (!c->bench)
        one(c, PLAIN_F32, 515, 40, 24, 2, true); /* more rows than one block holds */
    if (!c->bench && c->act == DTYPE_F32)
        check_accuracy(c);
}

void check_matmul_residual(struct check *c)
{
    check_form(c, RESIDUAL);
    if (!c->bench)
        one(c, RESIDUAL, 1030, 24, 16, 1, false);
}

void check_matmul_swiglu(struct check *c)
{
    check_form(c, SWIGLU);
    normed(c, SWIGLU);
}

void check_matmul_accurate(struct check *c)
{
    /* at both ends of a tile of few rows, of several, and of the kernel for few rows, whose bits those of more rows must be */
    static const int batches[] = {1, 15, 16, 17, 64, 127, 128, 129, 200, 0};
    static const int shapes[][2] = {{63, 64}, {66, 400}, {200, 1100}};
    check_form(c, ACCURATE);
    for (size_t i = 0; c->many_tiles && !c->bench && i < sizeof(shapes) / sizeof(*shapes); i++)
        for (int n_parts = 1; n_parts <= MAX_PARTS; n_parts += 2) /* of several parts one is often float32, which makes two terms */
            one_of(c, ACCURATE, 130, shapes[i][0], shapes[i][1], n_parts, n_parts > 1, batches);
}
