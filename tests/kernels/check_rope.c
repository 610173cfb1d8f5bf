/* rope_store: rotation of q in place, and rotated K and V in slots. */
#include "tests/check/harness.h"

enum { MAX_POS = 40 };

struct arg {
    struct kern_heads hs;
    float *cos, *sin; /* host, [MAX_POS, hd/2] */
    void *dev_cos, *dev_sin;
};

enum { QKV, POS, KV, ARRAYS };

static int width(const struct kern_heads *hs)
{
    return (hs->h + 2 * hs->hk) * hs->hd;
}

static int call(const struct check *c, const struct arg *a, void *const *dev, int n, const struct dev_i32 *slot, struct dev_act *kv,
                struct rows q_rows)
{
    struct kern_heads hs = a->hs;
    struct kern_step s = {.all = {NULL, NULL, n}, .pos = dev[POS]};
    hs.kv = kv;
    return c->k->ops->rope_store(c->k, &hs, dev[QKV], a->dev_cos, a->dev_sin, &s, slot, q_rows);
}

/* Row i of the set owns slot i, the others none; q_rows are the set (rotate) or nobody (store). */
static int run(const struct check *c, const void *arg, void *const *dev, struct rows rows, bool store)
{
    int n = rows.n_max, count = n, *slot = malloc(sizeof(int) * (n + 1)), *idx = malloc(sizeof(int) * (n + 1));
    struct err err;
    for (int i = 0; i < n; i++) {
        idx[i] = i;
        slot[i] = -1;
    }
    if (rows.n_dev)
        c->backend->download(c->k, &count, DEV_BYTES(rows.n_dev), sizeof(int));
    c->backend->sync(c->k, &err);
    if (rows.idx)
        c->backend->download(c->k, idx, DEV_BYTES(rows.idx), sizeof(int) * count);
    c->backend->sync(c->k, &err);
    for (int i = 0; i < count && store; i++)
        slot[idx[i]] = idx[i];
    struct dev_bytes *dev_slot = c->backend->alloc(c->k, sizeof(int) * n + 1);
    c->backend->upload(c->k, dev_slot, slot, sizeof(int) * n);
    int r = call(c, arg, dev, n, dev_i32_in(dev_slot, 0), dev[KV], store ? (struct rows){NULL, NULL, 0} : rows);
    c->backend->sync(c->k, &err);
    c->backend->free(c->k, dev_slot);
    free(slot);
    free(idx);
    return r;
}

static int run_rotate(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    return run(c, arg, dev, rows, false);
}
static int run_store(const struct check *c, const void *arg, void *const *dev, struct rows rows)
{
    return run(c, arg, dev, rows, true);
}

static void rotate(const struct check *c, const struct arg *a, int pos, const void *row, int first, int n_heads, double *out)
{
    int hd = a->hs.hd;
    for (int i = 0; i < n_heads; i++)
        for (int j = 0; j < hd / 2; j++) {
            double x = check_get(c, CHECK_ACT, row, first + i * hd + j), y = check_get(c, CHECK_ACT, row, first + i * hd + j + hd / 2);
            double cs = a->cos[pos * (hd / 2) + j], sn = a->sin[pos * (hd / 2) + j];
            out[i * hd + j] = x * cs - y * sn;
            out[i * hd + j + hd / 2] = y * cs + x * sn;
        }
}

static void want_rotate(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    for (int i = 0; i < width(&a->hs); i++)
        out[QKV][i] = check_get(c, CHECK_ACT, in[QKV], i);
    rotate(c, a, *(const int *)in[POS], in[QKV], 0, a->hs.h, out[QKV]);
}

static void want_store(const struct check *c, const void *arg, int r, const void *const *in, double *const *out)
{
    const struct arg *a = arg;
    int h = a->hs.h, hk = a->hs.hk, hd = a->hs.hd;
    rotate(c, a, *(const int *)in[POS], in[QKV], h * hd, hk, out[KV]);
    for (int i = 0; i < hk * hd; i++)
        out[KV][hk * hd + i] = check_get(c, CHECK_ACT, in[QKV], (size_t)(h + hk) * hd + i);
}

static void one(struct check *c, int n, int h, int hk, int hd)
{
    struct arg a = {.hs = {.h = h, .hk = hk, .hd = hd},
                    .cos = check_floats(c, MAX_POS * hd / 2, -1.2, 1.2),
                    .sin = check_floats(c, MAX_POS * hd / 2, -1.2, 1.2)};
    int w = width(&a.hs), kv = 2 * hk * hd;
    char what[64];
    a.dev_cos = check_up(c, a.cos, sizeof(float) * MAX_POS * hd / 2);
    a.dev_sin = check_up(c, a.sin, sizeof(float) * MAX_POS * hd / 2);
    struct check_array arrays[ARRAYS] = {
        [QKV] = {.name = "qkv",
                 .use = CHECK_INOUT,
                 .type = CHECK_ACT,
                 .cols = w,
                 .abs = 1e-6,
                 .rel = 1e-6,
                 .host = check_fill(c, CHECK_ACT, (size_t)n * w, -3, 3)},
        [POS] = {.name = "pos", .use = CHECK_IN, .type = CHECK_I32, .cols = 1, .host = check_fill(c, CHECK_I32, n, 0, MAX_POS - 1)},
        [KV] = {.name = "kv",
                .use = CHECK_IN,
                .type = CHECK_ACT,
                .cols = kv,
                .abs = 1e-6,
                .rel = 1e-6,
                .host = check_fill(c, CHECK_ACT, (size_t)n * kv, -3, 3)},
    };
    struct check_op op = {
        .what = what, .arrays = arrays, .n_arrays = ARRAYS, .n = n, .run = run_rotate, .want = want_rotate, .arg = &a, .all_rows = true};
    snprintf(what, sizeof(what), "rotate q %d/%d x %d", h, hk, hd);
    check_rows(c, &op);
    arrays[QKV].use = CHECK_IN;
    arrays[KV].use = CHECK_OUT;
    op.run = run_store;
    op.want = want_store;
    snprintf(what, sizeof(what), "store k v %d/%d x %d", h, hk, hd);
    check_rows(c, &op);
    check_arrays_done(arrays, ARRAYS);
    check_drop(c, a.dev_cos);
    check_drop(c, a.dev_sin);
    free(a.cos);
    free(a.sin);
}

void check_rope_store(struct check *c)
{
    static const int heads[][3] = {{1, 1, 8}, {4, 2, 16}, {6, 2, 24}, {3, 3, 40}, {6, 2, 64}, {2, 1, 128}, {1, 1, 256}};
    if (c->bench) {
        one(c, 512, 15, 5, 64);
        return;
    }
    for (size_t i = 0; i < sizeof(heads) / sizeof(*heads); i++)
        for (int n = 0; n <= 40; n = n * 3 + 1)
            one(c, n, heads[i][0], heads[i][1], heads[i][2]);
    one(c, 5000, 2, 1, 8); /* more rows than a device holds blocks */
}
