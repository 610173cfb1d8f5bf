/* route_mlp_place: what route_mlp and place give one after the other. Optional: without it nothing is checked. */
#include "tests/check/harness.h"

enum { LAYERS = 2, LAYER = 1, MAX_ROWS = KERN_ROUTE_PLACE_ROWS + 1, CAP = 40, RUN_MAX = 5 };

struct problem {
    int n, m, d, n_runs;
    bool keep_all, has_threshold, no_extras; /* no_extras: neither gate nor margin is wanted */
    float *x, *hid, *w2, b2[2], threshold;   /* [n, d], [n, m], [2, m] */
    struct kern_matrix *w1;
    struct kern_run runs[MAX_ROWS];
    int run_of[MAX_ROWS], base[MAX_ROWS], reserved[MAX_ROWS];
};

/* All that comes out. */
struct result {
    unsigned char route[MAX_ROWS];
    float gate[MAX_ROWS], prob[MAX_ROWS], margin[MAX_ROWS];
    int sel[MAX_ROWS], sel_n, exec[MAX_ROWS], exec_n, run_start[MAX_ROWS + 1], visible[MAX_ROWS], slot[MAX_ROWS],
        tables[MAX_ROWS * LAYERS * CAP];
};

static void make_router(struct check *c, struct problem *p)
{
    float *w1 = check_floats(c, (size_t)p->m * p->d, -0.1, 0.1), *b1 = check_floats(c, p->m, -1, 1);
    struct matrix_part part = {w1, DTYPE_F32, p->m, b1, DTYPE_F32};
    struct err err = {0};
    if (c->k->ops->matrix_new(c->k, MATRIX_ACCURATE, &part, 1, p->d, &p->w1, &err) < 0)
        check_fail(c, "route_mlp_place", "%s", err.text);
    p->w2 = check_floats(c, 2 * (size_t)p->m, -0.3, 0.3);
    p->b2[0] = (float)check_real(c, -0.2, 0.2);
    p->b2[1] = (float)check_real(c, -0.2, 0.2);
    p->threshold = (float)check_real(c, -0.5, 0.5);
    p->has_threshold = check_int(c, 0, 1);
    p->no_extras = !check_int(c, 0, 3);
    free(w1);
    free(b1);
}

/* Runs of a row each, as in decoding, or of several. */
static void make_rows(struct check *c, struct problem *p)
{
    int longest = check_int(c, 0, 1) ? 1 : RUN_MAX;
    p->keep_all = check_int(c, 0, 1);
    p->x = check_floats(c, (size_t)p->n * p->d, -4, 4);
    p->hid = check_floats(c, (size_t)p->n * p->m, -1, 1);
    for (int row = 0; row < p->n;) {
        int i = p->n_runs++, n = check_int(c, 1, p->n - row < longest ? p->n - row : longest);
        p->runs[i] = (struct kern_run){
            .row0 = row, .n = n, .append = check_int(c, 0, 3) > 0, .table_cap = CAP, .table_off = (int64_t)i * LAYERS * CAP};
        p->base[i] = check_int(c, 0, CAP - RUN_MAX);
        for (int end = row + n; row < end; row++) {
            p->run_of[row] = i;
            p->reserved[row] = 1000 + check_int(c, 0, 8) + 10 * row;
        }
    }
}

/* By both ops, or in one; what that returned. */
static int run(struct check *c, const struct problem *p, bool in_one, struct result *got)
{
    struct result *dev = check_up(c, got, sizeof(*got)); /* addresses of its arrays: nothing is read here */
    char *at = (char *)dev;
#define OUT(field) ((void *)(at + offsetof(struct result, field)))
    void *in[] = {check_up(c, p->x, sizeof(float) * p->n * p->d),
                  check_up(c, p->w2, sizeof(float) * 2 * p->m),
                  check_up(c, p->b2, sizeof(p->b2)),
                  check_up(c, &p->threshold, sizeof(float)),
                  check_up(c, p->runs, sizeof(*p->runs) * p->n_runs),
                  check_up(c, p->run_of, sizeof(int) * p->n),
                  check_up(c, p->base, sizeof(int) * p->n_runs),
                  check_up(c, p->reserved, sizeof(int) * p->n),
                  check_up(c, p->hid, sizeof(float) * p->n * p->m)};
    struct kern_step s = {.all = {.n_max = p->n}, .run_of = in[5], .runs = in[4], .n_runs = p->n_runs, .tables = OUT(tables)};
    struct route_out to = {.route = OUT(route),
                           .gate = p->no_extras ? NULL : OUT(gate),
                           .prob = OUT(prob),
                           .below = DECISION_LINEAR,
                           .above = DECISION_ATTEND,
                           .threshold = p->has_threshold ? in[3] : NULL,
                           .margin = p->no_extras ? NULL : OUT(margin)};
    struct route_mlp mlp = {p->w1, in[1], in[2], p->m, in[8], false};
    struct kern_place place = {.sel = OUT(sel),
                               .sel_n = OUT(sel_n),
                               .exec = OUT(exec),
                               .exec_n = OUT(exec_n),
                               .run_start = OUT(run_start),
                               .visible = OUT(visible),
                               .slot = OUT(slot)};
#undef OUT
    const struct kern_ops *o = c->k->ops;
    int r = 1;
    if (in_one) {
        r = o->route_mlp_place(c->k, &to, &mlp, in[0], &s, LAYER, p->keep_all, in[6], in[7], &place);
        check_code(c, "route_mlp_place", r < 0 ? r : 0);
    } else {
        check_code(c, "route_mlp", o->route_mlp(c->k, &to, &mlp, in[0], s.all));
        check_code(c, "place", o->place(c->k, &s, LAYER, to.route, p->keep_all, in[6], in[7], &place));
    }
    check_down(c, "route_mlp_place", got, dev, sizeof(*got));
    check_drop(c, dev);
    for (size_t i = 0; i < sizeof(in) / sizeof(*in); i++)
        check_drop(c, in[i]);
    return r;
}

static void one(struct check *c, int n, int m)
{
    static struct problem p;
    static struct result was, both, in_one;
    char what[64];
    snprintf(what, sizeof(what), "%d rows, m %d", n, m);
    p = (struct problem){.n = n, .m = m, .d = 2 * m};
    make_router(c, &p);
    make_rows(c, &p);
    memset(&was, 0xee, sizeof(was));
    both = in_one = was;
    run(c, &p, false, &both);
    int r = run(c, &p, true, &in_one);
    if (r > 0 && n > KERN_ROUTE_PLACE_ROWS)
        check_fail(c, what, "it returns %d", r);
    const struct result *want = r > 0 ? &both : &was; /* else nothing may have been done */
    const struct {
        const char *name;
        const void *got, *want;
        size_t bytes;
    } arrays[] = {
#define ARRAY(field) {#field, &in_one.field, &want->field, sizeof(want->field)}
        ARRAY(route), ARRAY(gate),   ARRAY(prob),      ARRAY(margin),  ARRAY(sel),  ARRAY(sel_n),
        ARRAY(exec),  ARRAY(exec_n), ARRAY(run_start), ARRAY(visible), ARRAY(slot), ARRAY(tables),
#undef ARRAY
    };
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++)
        if (memcmp(arrays[i].got, arrays[i].want, arrays[i].bytes))
            check_fail(c, what, "%s is not what %s", arrays[i].name, r > 0 ? "the two ops leave" : "it was");
    c->cases += r > 0;
    c->k->ops->matrix_free(c->k, p.w1);
    free(p.x);
    free(p.hid);
    free(p.w2);
}

/* Both ends of a tile of rows, and one row too many; one tile of columns, several, more of k than a kernel takes at once, and more than a device has room for. */
void check_route_mlp_place(struct check *c)
{
    static const int rows[] = {1, 2, 15, 16, 17, 31, 48, 63, 64, 65, 100, 127, 128, 129}, widths[] = {8, 62, 200, 480, 600, 2120};
    if (!c->k->ops->route_mlp_place || c->bench)
        return;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        for (size_t j = 0; j < sizeof(widths) / sizeof(*widths); j++)
            one(c, rows[i], widths[j]);
}
