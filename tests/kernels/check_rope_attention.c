/* rope_attention: the bits of rope_store and attention where each run has one row. Optional: without it nothing is checked. */
#include "tests/check/harness.h"
#include <math.h>

enum { LAYERS = 2, LAYER = 1, MAX_POS = 64, MAX_ROWS = 150 };

struct shape {
    int h, hk, hd, n, max_keys;
};

/* What both ways are given; host arrays. */
struct problem {
    struct shape z;
    int total; /* KV slots */
    int run_of[MAX_ROWS], pos[MAX_ROWS], base[MAX_ROWS], visible[MAX_ROWS], slot[MAX_ROWS], sel[MAX_ROWS], run_start[MAX_ROWS + 1], n_sel;
    struct kern_run runs[MAX_ROWS];
    int *tables;
    void *qkv, *kv, *out; /* act: [n, (h+2hk)*hd], [total, 2*hk*hd], [n, h*hd] */
    float *cos, *sin;     /* [MAX_POS, hd/2] */
};

/* Row i sees `keys` keys, its own included: it appends, or is run again, or does not attend (with a slot of its own, or without). Of the keys before it all were
 * there before the step, though its base may name fewer. */
static void lay_row(struct check *c, struct problem *p, int i, int first_slot)
{
    int keys = check_int(c, 0, 3) ? check_int(c, 1, p->z.max_keys) : p->z.max_keys, kind = check_int(c, 0, 9), cap = p->z.max_keys + 2;
    bool attends = kind < 7, append = kind < 5 || kind == 7;
    p->run_of[i] = i;
    p->pos[i] = check_int(c, 0, MAX_POS - 1);
    p->runs[i] = (struct kern_run){.row0 = i, .n = 1, .append = append, .table_cap = cap, .table_off = (int64_t)i * LAYERS * cap};
    for (int j = 0; j < LAYERS * cap; j++)
        p->tables[(size_t)i * LAYERS * cap + j] = -(1 << 28); /* following it is not survived */
    for (int j = 0; j < keys; j++)                            /* slots that follow each other, or do not */
        p->tables[(size_t)i * LAYERS * cap + LAYER * cap + j] = first_slot + ((i % 2 ? j : keys - 1 - j) + i) % keys;
    p->visible[i] = attends || append ? keys : 1 << 30;
    int fewer = check_int(c, 0, 9);
    p->base[i] = check_int(c, 0, 2) ? keys - 1 : -1 - (keys - 1 > fewer ? keys - 1 - fewer : 0);
    p->slot[i] = append ? p->tables[(size_t)i * LAYERS * cap + LAYER * cap + keys - 1] : -1;
    p->run_start[i] = p->n_sel;
    if (attends)
        p->sel[p->n_sel++] = i;
}

static void make(struct check *c, struct problem *p)
{
    const struct shape *z = &p->z;
    p->total = z->n * z->max_keys;
    p->tables = calloc((size_t)z->n * LAYERS * (z->max_keys + 2), sizeof(int));
    for (int i = 0; i < z->n; i++)
        lay_row(c, p, i, i * z->max_keys);
    p->run_start[z->n] = p->n_sel;
    p->qkv = check_fill(c, CHECK_ACT, (size_t)z->n * (z->h + 2 * z->hk) * z->hd, -3, 3);
    p->kv = check_fill(c, CHECK_ACT, (size_t)p->total * 2 * z->hk * z->hd, -3, 3);
    p->out = check_fill(c, CHECK_ACT, (size_t)z->n * z->h * z->hd, -3, 3);
    p->cos = check_floats(c, MAX_POS * z->hd / 2, -1.2, 1.2);
    p->sin = check_floats(c, MAX_POS * z->hd / 2, -1.2, 1.2);
}

/* One of the two ways; out and kv take what comes out. Returns 0 if there is no such op for these rows. */
static int run(struct check *c, const struct problem *p, bool in_one, void *out, void *kv)
{
    const struct shape *z = &p->z;
    size_t size = check_size(c, CHECK_ACT), cap = z->max_keys + 2;
    size_t kv_bytes = (size_t)p->total * 2 * z->hk * z->hd * size, out_bytes = (size_t)z->n * z->h * z->hd * size;
    void *dev[] = {check_up(c, p->qkv, (size_t)z->n * (z->h + 2 * z->hk) * z->hd * size),
                   check_up(c, p->kv, kv_bytes),
                   check_up(c, p->out, out_bytes),
                   check_up(c, p->run_of, 4 * z->n),
                   check_up(c, p->runs, sizeof(*p->runs) * z->n),
                   check_up(c, p->tables, 4 * (size_t)z->n * LAYERS * cap),
                   check_up(c, p->sel, 4 * p->n_sel),
                   check_up(c, &p->n_sel, 4),
                   check_up(c, p->run_start, 4 * (z->n + 1)),
                   check_up(c, p->visible, 4 * z->n),
                   check_up(c, p->slot, 4 * z->n),
                   check_up(c, p->pos, 4 * z->n),
                   check_up(c, p->base, 4 * z->n),
                   check_up(c, p->cos, sizeof(float) * MAX_POS * z->hd / 2),
                   check_up(c, p->sin, sizeof(float) * MAX_POS * z->hd / 2)};
    struct kern_heads hs = {.h = z->h, .hk = z->hk, .hd = z->hd, .kv = dev[1]};
    struct kern_step s = {.all = {NULL, NULL, z->n}, .pos = dev[11], .run_of = dev[3], .runs = dev[4], .n_runs = z->n, .tables = dev[5]};
    struct kern_place to = {.sel = dev[6], .sel_n = dev[7], .run_start = dev[8], .visible = dev[9], .slot = dev[10]};
    const struct kern_ops *o = c->k->ops;
    float scale = 1 / sqrtf((float)z->hd);
    int r = 1;
    if (in_one) {
        r = o->rope_attention(c->k, &hs, dev[2], dev[0], dev[13], dev[14], &s, LAYER, &to, dev[12], scale);
        check_code(c, "rope_attention", r < 0 ? r : 0);
    } else {
        check_code(c, "rope_store", o->rope_store(c->k, &hs, dev[0], dev[13], dev[14], &s, to.slot, (struct rows){dev[6], dev[7], z->n}));
        check_code(c, "attention", o->attention(c->k, &hs, dev[2], dev[0], &s, LAYER, &to, scale));
    }
    check_down(c, "out", out, dev[2], out_bytes);
    check_down(c, "kv", kv, dev[1], kv_bytes);
    for (size_t i = 0; i < sizeof(dev) / sizeof(*dev); i++)
        check_drop(c, dev[i]);
    return r;
}

static void one(struct check *c, struct shape z)
{
    struct problem p = {.z = z};
    make(c, &p);
    size_t size = check_size(c, CHECK_ACT), row = (size_t)z.h * z.hd * size, slot = (size_t)2 * z.hk * z.hd * size;
    char *out[] = {calloc(z.n, row), calloc(z.n, row)}, *kv[] = {calloc(p.total, slot), calloc(p.total, slot)}, what[96];
    snprintf(what, sizeof(what), "%d/%d x %d, %d rows of up to %d keys", z.h, z.hk, z.hd, z.n, z.max_keys);
    run(c, &p, false, out[0], kv[0]);
    bool done = run(c, &p, true, out[1], kv[1]) > 0;
    c->cases++;
    for (int i = 0; done && i < z.n; i++)
        if (memcmp(out[0] + i * row, out[1] + i * row, row))
            check_fail(c, what, "row %d (sees %d, base %d, append %d) has other bits than those of the two ops", i, p.visible[i], p.base[i],
                       p.runs[i].append);
    if (done && memcmp(kv[0], kv[1], p.total * slot))
        check_fail(c, what, "K and V in the cache have other bits than those of rope_store");
    void *all[] = {out[0], out[1], kv[0], kv[1], p.tables, p.qkv, p.kv, p.out, p.cos, p.sin};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        free(all[i]);
}

void check_rope_attention(struct check *c)
{
    static const struct shape shapes[] = {{1, 1, 8, 3, 5},       {4, 2, 16, 9, 130},    {6, 2, 24, 20, 257},  {15, 5, 64, 1, 700},
                                          {15, 5, 64, 64, 300},  {4, 4, 64, 150, 129},  {6, 6, 40, 5, 128},   {8, 2, 80, 7, 400},
                                          {3, 1, 128, 40, 1200}, {64, 1, 128, 3, 1030}, {2, 1, 256, 17, 500}, {65, 1, 16, 2, 9},
                                          {15, 5, 64, 6, 1200},  {15, 5, 64, 40, 1000}};
    if (!c->k->ops->rope_attention || c->bench)
        return;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        one(c, shapes[i]);
}
