/* matmul_with_bypass and matmul_with_bypass_normed: the bits of the ops that they stand for. Optional: without them nothing is checked. */
#include "tests/check/harness.h"

struct shape {
    int h, hk, hd, d;
};

enum set { EVERY, COUNT, LIST, SETS }; /* all rows; so many as the device knows; of a list as well */

/* What all ways are given. */
struct problem {
    struct shape z;
    int n, n_set, idx[64]; /* the first rows, or those that idx names */
    enum set set;
    float *x, *norm;                /* [n,d], [d] */
    void *xn, *qkv, *out;           /* act: [n,d], [n, (h+2hk)*hd], [n, h*hd] */
    struct kern_matrix *w_qk, *w_v; /* [(h+hk)*hd, d], [hk*hd, d] */
};

enum way { TWO_OPS, IN_ONE, NORMED_OPS, NORMED_IN_ONE };

static struct kern_matrix *make_matrix(struct check *c, int n, int k, bool bias)
{
    float *w = check_floats(c, (size_t)n * k, -1, 1), *b = check_floats(c, n, -2, 2);
    struct matrix_part part = {w, DTYPE_F32, n, bias ? b : NULL, DTYPE_F32};
    struct kern_matrix *m = NULL;
    struct err err = {0};
    if (c->k->ops->matrix_new(c->k, MATRIX_LINEAR, &part, 1, k, &m, &err) < 0)
        check_fail(c, "matrix_new", "%s", err.text);
    free(w);
    free(b);
    return m;
}

static void make(struct check *c, struct problem *p, bool bias)
{
    const struct shape *z = &p->z;
    p->w_qk = make_matrix(c, (z->h + z->hk) * z->hd, z->d, bias);
    p->w_v = make_matrix(c, z->hk * z->hd, z->d, bias);
    p->x = check_floats(c, (size_t)p->n * z->d, -3, 3);
    p->norm = check_floats(c, z->d, 0.5, 1.5);
    p->xn = check_fill(c, CHECK_ACT, (size_t)p->n * z->d, -1, 1);
    p->qkv = check_fill(c, CHECK_ACT, (size_t)p->n * (z->h + 2 * z->hk) * z->hd, -3, 3);
    p->out = check_fill(c, CHECK_ACT, (size_t)p->n * z->h * z->hd, -3, 3);
    p->n_set = p->set == EVERY ? p->n : 0;
    for (int r = 0; r < p->n && p->set != EVERY; r++)
        if (check_int(c, 0, 2))
            p->idx[p->n_set++] = r;
}

static void drop(struct check *c, struct problem *p)
{
    c->k->ops->matrix_free(c->k, p->w_qk);
    c->k->ops->matrix_free(c->k, p->w_v);
    void *all[] = {p->x, p->norm, p->xn, p->qkv, p->out};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
}

static int two_ops(struct check *c, const struct problem *p, const struct kern_heads *hs, void *const *dev, struct rows rows)
{
    const struct kern_ops *o = c->k->ops;
    int d = p->z.d, r = o->matmul(c->k, dev[2], 0, (hs->h + 2 * hs->hk) * hs->hd, dev[1], d, p->w_qk, rows);
    return r < 0 ? r : o->matmul_bypass(c->k, hs, dev[3], dev[2], dev[1], p->w_v, d, rows);
}

static int run_way(struct check *c, const struct problem *p, enum way way, void *const *dev, struct rows rows)
{
    const struct kern_ops *o = c->k->ops;
    const struct kern_heads hs = {.h = p->z.h, .hk = p->z.hk, .hd = p->z.hd};
    const struct kern_norm norm = {.x = dev[0], .w = dev[4], .eps = 1e-5f};
    if (way == NORMED_IN_ONE)
        return o->matmul_with_bypass_normed(c->k, &hs, dev[3], dev[2], &norm, p->w_qk, p->w_v, rows);
    if (way == IN_ONE)
        return o->matmul_with_bypass(c->k, &hs, dev[3], dev[2], dev[1], p->w_qk, p->w_v, p->z.d, rows);
    int r = way == NORMED_OPS ? o->rmsnorm(c->k, dev[1], NULL, norm.x, norm.w, rows, p->z.d, norm.eps) : 0;
    return r < 0 ? r : two_ops(c, p, &hs, dev, rows);
}

/* One of the ways; qkv and out take what comes out. Returns whether there is that for such rows and weights. */
static bool run(struct check *c, const struct problem *p, enum way way, void *qkv, void *out)
{
    const struct shape *z = &p->z;
    size_t size = check_size(c, CHECK_ACT), qkv_bytes = (size_t)p->n * (z->h + 2 * z->hk) * z->hd * size,
           out_bytes = (size_t)p->n * z->h * z->hd * size;
    void *dev[] = {check_up(c, p->x, sizeof(float) * p->n * z->d),
                   check_up(c, p->xn, size * p->n * z->d),
                   check_up(c, p->qkv, qkv_bytes),
                   check_up(c, p->out, out_bytes),
                   check_up(c, p->norm, sizeof(float) * z->d),
                   check_up(c, p->idx, sizeof(p->idx)),
                   check_up(c, &p->n_set, sizeof(int))};
    struct rows rows = {p->set == LIST ? dev[5] : NULL, p->set == EVERY ? NULL : dev[6], p->n};
    int r = run_way(c, p, way, dev, rows);
    check_code(c, "with_bypass", r < 0 ? r : 0);
    check_down(c, "qkv", qkv, dev[2], qkv_bytes);
    check_down(c, "out", out, dev[3], out_bytes);
    for (size_t i = 0; i < sizeof(dev) / sizeof(*dev); i++)
        check_drop(c, dev[i]);
    return r > 0 || way == TWO_OPS || way == NORMED_OPS;
}

static bool in_set(const struct problem *p, int r)
{
    for (int i = 0; i < p->n_set && p->set == LIST; i++)
        if (p->idx[i] == r)
            return true;
    return p->set != LIST && r < p->n_set;
}

/* Rows of one array by both ways, and as they were. */
static void compare(struct check *c, const struct problem *p, const char *what, const char *name, const void *two, const void *one,
                    const void *was, size_t row)
{
    for (int r = 0; r < p->n; r++) {
        const char *want = (const char *)(in_set(p, r) ? two : was) + r * row;
        if (memcmp(want, (const char *)one + r * row, row))
            check_fail(c, what, "row %d of %s %s", r, name, in_set(p, r) ? "has other bits than by the ops" : "was changed");
    }
}

static void one(struct check *c, struct shape z, int n, enum set set, bool bias)
{
    struct problem p = {.z = z, .n = n, .set = set};
    make(c, &p, bias);
    size_t size = check_size(c, CHECK_ACT), qkv = (size_t)(z.h + 2 * z.hk) * z.hd * size, out = (size_t)z.h * z.hd * size;
    char *got[2][2] = {{calloc(n, qkv), calloc(n, out)}, {calloc(n, qkv), calloc(n, out)}}, what[96];
    for (enum way way = TWO_OPS; way <= NORMED_OPS; way += 2) {
        snprintf(what, sizeof(what), "%s%d/%d x %d of %d, %d rows, set %d%s", way == NORMED_OPS ? "normed " : "", z.h, z.hk, z.hd, z.d, n,
                 set, bias ? ", bias" : "");
        run(c, &p, way, got[0][0], got[0][1]);
        bool done = run(c, &p, way + 1, got[1][0], got[1][1]);
        c->cases += done;
        compare(c, &p, what, "qkv", done ? got[0][0] : p.qkv, got[1][0], p.qkv, qkv); /* else nothing may have been done */
        compare(c, &p, what, "out", done ? got[0][1] : p.out, got[1][1], p.out, out);
    }
    for (int i = 0; i < 4; i++)
        free(got[i / 2][i % 2]);
    drop(c, &p);
}

void check_matmul_with_bypass(struct check *c)
{
    static const struct shape shapes[] = {{15, 5, 64, 960}, {4, 2, 32, 200},   {8, 1, 128, 72},  {3, 3, 64, 2048},
                                          {6, 2, 24, 1032}, {9, 3, 128, 1024}, {40, 8, 64, 136}, {2, 2, 8, 8}};
    static const int rows[] = {1, 2, 7, 8, 9, 31, 64};
    if (!c->k->ops->matmul_with_bypass || !c->k->ops->matmul_with_bypass_normed || c->bench)
        return;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(*shapes); s++)
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
            for (enum set set = EVERY; set < SETS; set++)
                one(c, shapes[s], rows[i], set, (s + i + set) % 2);
    one(c, (struct shape){3, 1, 64, 31}, 5, EVERY, true); /* rows that do not start at multiples of 16 bytes */
    one(c, (struct shape){3, 1, 64, 64}, 64, COUNT, true);
}
