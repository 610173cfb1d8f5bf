/* matmul_rope_store: the bits of matmul and rope_store. Optional: without it nothing is checked. */
#include "tests/check/harness.h"

enum { MAX_POS = 100 };

struct shape {
    int h, hk, hd, d, n;
    bool bias;
};

/* What both ways are given; host arrays. */
struct problem {
    struct shape z;
    int *pos, *slot;     /* [n] */
    void *xn, *qkv, *kv; /* act: [n,d], [n, (h+2hk)*hd], [n, 2*hk*hd] */
    float *cos, *sin;    /* [MAX_POS, hd/2] */
    struct kern_matrix *w;
};

static struct kern_matrix *make_matrix(struct check *c, const struct shape *z)
{
    int n = (z->h + 2 * z->hk) * z->hd;
    float *w = check_floats(c, (size_t)n * z->d, -1, 1), *b = check_floats(c, n, -2, 2);
    struct matrix_part part = {w, DTYPE_F32, n, z->bias ? b : NULL, DTYPE_F32};
    struct kern_matrix *m = NULL;
    struct err err = {0};
    if (c->k->ops->matrix_new(c->k, MATRIX_LINEAR, &part, 1, z->d, &m, &err) < 0)
        check_fail(c, "matrix_new", "%s", err.text);
    free(w);
    free(b);
    return m;
}

static void make(struct check *c, struct problem *p)
{
    const struct shape *z = &p->z;
    p->pos = malloc(sizeof(int) * z->n);
    p->slot = malloc(sizeof(int) * z->n);
    for (int r = 0; r < z->n; r++) {
        p->pos[r] = check_int(c, 0, MAX_POS - 1);
        p->slot[r] = check_int(c, 0, 4) ? z->n - 1 - r : -1;
    }
    p->xn = check_fill(c, CHECK_ACT, (size_t)z->n * z->d, -1, 1);
    p->qkv = check_fill(c, CHECK_ACT, (size_t)z->n * (z->h + 2 * z->hk) * z->hd, -3, 3);
    p->kv = check_fill(c, CHECK_ACT, (size_t)z->n * 2 * z->hk * z->hd, -3, 3);
    p->cos = check_floats(c, MAX_POS * z->hd / 2, -1.2, 1.2);
    p->sin = check_floats(c, MAX_POS * z->hd / 2, -1.2, 1.2);
    p->w = make_matrix(c, z);
}

static void drop(struct check *c, struct problem *p)
{
    void *all[] = {p->pos, p->slot, p->xn, p->qkv, p->kv, p->cos, p->sin};
    c->k->ops->matrix_free(c->k, p->w);
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
}

/* One of the two ways; qkv and kv take what comes out. Returns 0 if there is no such op for these rows and heads. */
static int run(struct check *c, const struct problem *p, bool in_one, void *qkv, void *kv)
{
    const struct shape *z = &p->z;
    const struct kern_ops *o = c->k->ops;
    int width = (z->h + 2 * z->hk) * z->hd, r = 1;
    size_t size = check_size(c, CHECK_ACT), qkv_bytes = (size_t)z->n * width * size, kv_bytes = (size_t)z->n * 2 * z->hk * z->hd * size;
    void *dev[] = {check_up(c, p->xn, (size_t)z->n * z->d * size),
                   check_up(c, p->qkv, qkv_bytes),
                   check_up(c, p->kv, kv_bytes),
                   check_up(c, p->pos, sizeof(int) * z->n),
                   check_up(c, p->slot, sizeof(int) * z->n),
                   check_up(c, p->cos, sizeof(float) * MAX_POS * z->hd / 2),
                   check_up(c, p->sin, sizeof(float) * MAX_POS * z->hd / 2)};
    struct kern_heads hs = {.h = z->h, .hk = z->hk, .hd = z->hd, .kv = dev[2]};
    struct kern_step s = {.all = {NULL, NULL, z->n}, .pos = dev[3]};
    if (in_one) {
        r = o->matmul_rope_store(c->k, &hs, dev[1], dev[0], p->w, z->d, dev[5], dev[6], &s, dev[4]);
        check_code(c, "matmul_rope_store", r < 0 ? r : 0);
    } else {
        check_code(c, "matmul", o->matmul(c->k, dev[1], 0, width, dev[0], z->d, p->w, s.all));
        check_code(c, "rope_store", o->rope_store(c->k, &hs, dev[1], dev[5], dev[6], &s, dev[4], s.all));
    }
    check_down(c, "qkv", qkv, dev[1], qkv_bytes);
    check_down(c, "kv", kv, dev[2], kv_bytes);
    for (size_t i = 0; i < sizeof(dev) / sizeof(*dev); i++)
        check_drop(c, dev[i]);
    return r;
}

/* Of CUDA's levels the highest has the op, in 16-bit types. */
static bool takes_heads(const struct check *c)
{
    return c->act != DTYPE_F32 && strstr(c->backend->numerics_class(c->k), " wgmma");
}

/* Rows of q, and of the pool, which is as it was where no row has its slot. */
static void one(struct check *c, struct shape z)
{
    struct problem p = {.z = z};
    make(c, &p);
    size_t size = check_size(c, CHECK_ACT), q = (size_t)z.h * z.hd * size, row = (size_t)(z.h + 2 * z.hk) * z.hd * size,
           slot = (size_t)2 * z.hk * z.hd * size;
    char *qkv[] = {malloc(z.n * row), malloc(z.n * row)}, *kv[] = {malloc(z.n * slot), malloc(z.n * slot)}, what[96];
    snprintf(what, sizeof(what), "%d/%d x %d of %d, %d rows%s", z.h, z.hk, z.hd, z.d, z.n, z.bias ? ", bias" : "");
    run(c, &p, false, qkv[0], kv[0]);
    bool done = run(c, &p, true, qkv[1], kv[1]) > 0, fits = z.n > 512 && (z.hd == 64 || z.hd == 128);
    c->cases += done;
    if (done != (fits && takes_heads(c)))
        check_fail(c, what, "it was %sdone in one", done ? "" : "not ");
    for (int r = 0; done && r < z.n; r++) {
        if (memcmp(qkv[0] + r * row, qkv[1] + r * row, q))
            check_fail(c, what, "q of row %d has other bits than those of the two ops", r);
        if (memcmp(kv[0] + r * slot, kv[1] + r * slot, slot))
            check_fail(c, what, "K and V in slot %d have other bits than those of the two ops", r);
    }
    void *all[] = {qkv[0], qkv[1], kv[0], kv[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
    drop(c, &p);
}

void check_matmul_rope_store(struct check *c)
{
    static const struct shape shapes[] = {{15, 5, 64, 960, 1000, false}, {15, 5, 64, 960, 16384, false}, {15, 5, 64, 960, 2048, true},
                                          {14, 2, 64, 896, 2500, true},  {3, 1, 64, 72, 513, true},      {8, 2, 128, 512, 700, true},
                                          {5, 5, 128, 64, 3000, false},  {16, 16, 128, 256, 600, true},  {1, 1, 64, 64, 20000, true},
                                          {6, 2, 32, 64, 600, false},    {15, 5, 64, 960, 512, false}};
    if (!c->k->ops->matmul_rope_store || c->bench)
        return;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        one(c, shapes[i]);
}
