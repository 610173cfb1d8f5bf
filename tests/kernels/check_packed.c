/* gather_rows, gather_norm, blend and matmul_blend: from step rows to packed ones and back. */
#include "tests/check/harness.h"
#include <math.h>

/* A set of step rows, and arrays of as many rows as the step has. */
struct set {
    int n, m, d, *idx; /* m of n rows */
    struct rows rows, packed;
};

static struct set make_set(struct check *c, int n, int d)
{
    struct set s = {.n = n, .d = d, .idx = calloc(n + 1, sizeof(int))};
    for (int r = 0; r < n; r++)
        if (check_int(c, 0, 2))
            s.idx[s.m++] = r;
    s.rows = (struct rows){check_up(c, s.idx, sizeof(int) * n), check_up(c, &s.m, sizeof(int)), n};
    s.packed = (struct rows){NULL, s.rows.n_dev, n};
    return s;
}

static void drop_set(struct check *c, struct set *s)
{
    check_drop(c, (void *)s->rows.idx);
    check_drop(c, (void *)s->rows.n_dev);
    free(s->idx);
}

/* An array of a row of `size` bytes for each row of the set's step, on both sides. */
struct array {
    char *host; /* as it was */
    void *dev;
    size_t row, bytes;
};

static struct array make_array(struct check *c, const struct set *s, enum check_type t, int cols)
{
    struct array a = {.host = check_fill(c, t, (size_t)s->n * cols, -1, 1), .row = check_size(c, t) * cols};
    a.bytes = a.row * s->n;
    a.dev = check_up(c, a.host, a.bytes);
    return a;
}

static void drop_array(struct check *c, struct array *a)
{
    check_drop(c, a->dev);
    free(a->host);
}

static char *download(struct check *c, const struct array *a, const char *what)
{
    char *p = calloc(a->bytes + 1, 1);
    check_down(c, what, p, a->dev, a->bytes);
    return p;
}

/* Packed rows are these rows of `want`, and what lies beyond them is as it was. */
static void expect_packed(struct check *c, const struct set *s, const struct array *got, const char *want, const char *what)
{
    char *p = download(c, got, what);
    for (int i = 0; i < s->m; i++)
        if (memcmp(p + i * got->row, want + s->idx[i] * got->row, got->row))
            check_fail(c, what, "row %d is not that of step row %d", i, s->idx[i]);
    if (memcmp(p + s->m * got->row, got->host + s->m * got->row, (s->n - s->m) * got->row))
        check_fail(c, what, "wrote past its %d rows", s->m);
    check_digest(c, p, got->bytes);
    free(p);
}

static void gather(struct check *c, int n, int d)
{
    struct set s = make_set(c, n, d);
    struct array x = make_array(c, &s, CHECK_F32, d), dst = make_array(c, &s, CHECK_F32, d);
    c->cases++;
    check_code(c, "gather_rows", c->k->ops->gather_rows(c->k, dst.dev, x.dev, d, s.rows));
    expect_packed(c, &s, &dst, x.host, "gather_rows");
    drop_array(c, &x);
    drop_array(c, &dst);
    drop_set(c, &s);
}

/* Against gather_rows' promise and rmsnorm, to the bit. */
static void gather_norm(struct check *c, int n, int d)
{
    struct set s = make_set(c, n, d);
    struct array x = make_array(c, &s, CHECK_F32, d), dst = make_array(c, &s, CHECK_F32, d), y = make_array(c, &s, CHECK_ACT, d),
                 normed = make_array(c, &s, CHECK_ACT, d);
    float *w = check_floats(c, d, -2, 2);
    void *dev_w = check_up(c, w, sizeof(float) * d);
    c->cases++;
    check_code(c, "rmsnorm", c->k->ops->rmsnorm(c->k, normed.dev, NULL, x.dev, dev_w, (struct rows){.n_max = n}, d, 1e-5f));
    check_code(c, "gather_norm", c->k->ops->gather_norm(c->k, y.dev, dst.dev, x.dev, dev_w, s.rows, d, 1e-5f));
    char *want = download(c, &normed, "rmsnorm");
    expect_packed(c, &s, &dst, x.host, "gather_norm: x");
    expect_packed(c, &s, &y, want, "gather_norm: y");
    free(want);
    free(w);
    check_drop(c, dev_w);
    struct array *all[] = {&x, &dst, &y, &normed};
    for (int i = 0; i < 4; i++)
        drop_array(c, all[i]);
    drop_set(c, &s);
}

static void expect_blended(struct check *c, const struct set *s, const struct array *x, const struct array *y, const float *gate,
                           enum blend_mode mode)
{
    float *got = (float *)download(c, x, "blend"), *want = malloc(x->bytes + 1);
    memcpy(want, x->host, x->bytes);
    for (int i = 0; i < s->m; i++)
        for (int j = 0; j < s->d; j++) {
            size_t at = (size_t)s->idx[i] * s->d + j;
            double v = ((float *)y->host)[(size_t)i * s->d + j];
            want[at] += gate[s->idx[i]] * (mode == BLEND_ADD ? v : v - want[at]);
        }
    for (size_t i = 0; i < x->bytes / sizeof(float); i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-6f))
            check_fail(c, "blend", "row %zu: %g, not %g", i / s->d, got[i], want[i]);
    check_digest(c, got, x->bytes);
    free(got);
    free(want);
}

static void blend(struct check *c, int n, int d, enum blend_mode mode)
{
    struct set s = make_set(c, n, d);
    struct array x = make_array(c, &s, CHECK_F32, d), y = make_array(c, &s, CHECK_F32, d), gate = make_array(c, &s, CHECK_F32, 1);
    c->cases++;
    check_code(c, "blend", c->k->ops->blend(c->k, x.dev, y.dev, gate.dev, mode, d, s.rows));
    expect_blended(c, &s, &x, &y, (const float *)gate.host, mode);
    drop_array(c, &x);
    drop_array(c, &y);
    drop_array(c, &gate);
    drop_set(c, &s);
}

static struct kern_matrix *make_matrix(struct check *c, int n, int k, bool bias)
{
    float *w = check_floats(c, (size_t)n * k, -1, 1), *b = check_floats(c, n, -1, 1);
    struct matrix_part part = {w, DTYPE_F32, n, bias ? b : NULL, DTYPE_F32};
    struct kern_matrix *m = NULL;
    struct err err = {0};
    if (c->k->ops->matrix_new(c->k, MATRIX_LINEAR, &part, 1, k, &m, &err) < 0)
        check_fail(c, "matmul_blend", "%s", err.text);
    free(w);
    free(b);
    return m;
}

/* Against matmul_residual and blend, to the bit. */
static void matmul_blend(struct check *c, int n, int d, int k)
{
    const struct kern_ops *o = c->k->ops;
    enum blend_mode mode = check_int(c, BLEND_ADD, BLEND_TOWARDS);
    struct set s = make_set(c, n, d);
    struct kern_matrix *w = make_matrix(c, d, k, check_int(c, 0, 1));
    struct array x = make_array(c, &s, CHECK_F32, d), y = make_array(c, &s, CHECK_F32, d), a = make_array(c, &s, CHECK_ACT, k),
                 gate = make_array(c, &s, CHECK_F32, 1);
    struct array x2 = x, y2 = y;
    x2.dev = check_up(c, x.host, x.bytes);
    y2.dev = check_up(c, y.host, y.bytes);
    c->cases++;
    check_code(c, "matmul_blend", o->matmul_blend(c->k, x.dev, y.dev, a.dev, k, w, gate.dev, mode, s.rows));
    check_code(c, "matmul_residual", o->matmul_residual(c->k, y2.dev, a.dev, k, w, NULL, s.packed));
    check_code(c, "blend", o->blend(c->k, x2.dev, y2.dev, gate.dev, mode, d, s.rows));
    char *got = download(c, &x, "matmul_blend"), *want = download(c, &x2, "blend");
    for (int r = 0; r < n; r++)
        if (memcmp(got + r * x.row, want + r * x.row, x.row))
            check_fail(c, "matmul_blend", "n %d d %d k %d: row %d is not blend(matmul_residual)", n, d, k, r);
    check_digest(c, got, x.bytes);
    free(got);
    free(want);
    check_drop(c, x2.dev);
    check_drop(c, y2.dev);
    struct array *all[] = {&x, &y, &a, &gate};
    for (int i = 0; i < 4; i++)
        drop_array(c, all[i]);
    o->matrix_free(c->k, w);
    drop_set(c, &s);
}

void check_gather_rows(struct check *c)
{
    for (int n = 0; n <= 40 && !c->bench; n = n * 3 + 1)
        for (int d = 1; d < 400; d = d * 2 + 3)
            gather(c, n, d + d % 4);
}

void check_gather_norm(struct check *c)
{
    static const int widths[] = {1, 8, 17, 96, 129, 480, 1028, 2052};
    for (int n = 0; n <= 40 && !c->bench; n = n * 3 + 1)
        for (size_t i = 0; i < sizeof(widths) / sizeof(*widths); i++)
            gather_norm(c, n, widths[i]);
}

void check_blend(struct check *c)
{
    for (int n = 0; n <= 40 && !c->bench; n = n * 3 + 1)
        for (int d = 1; d < 400; d = d * 2 + 3)
            blend(c, n, d + d % 4, check_int(c, BLEND_ADD, BLEND_TOWARDS));
}

void check_matmul_blend(struct check *c)
{
    static const int shapes[][2] = {{6, 8}, {34, 31}, {66, 65}, {128, 64}, {260, 96}, {96, 385}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes) && !c->bench; s++)
        for (int n = 0; n <= 121; n = n * 3 + 1)
            matmul_blend(c, n, shapes[s][0], shapes[s][1]);
    for (int n = 600; n < 2000 && c->many_tiles && !c->bench; n += 700) {
        matmul_blend(c, n, 520, 200);
        matmul_blend(c, n, 960, 64);
    }
}
