/* place: row lists and key places, against the header's sentences taken one by one; place_layers, where there is that, against place. */
#include "tests/check/harness.h"

enum { LAYERS = 3, MAX_RUNS = 12, SHORT_RUN = 9, LONG_RUN = 600, CAP = LONG_RUN + 15, MAX_ROWS = MAX_RUNS * LONG_RUN };

struct problem {
    struct kern_run runs[MAX_RUNS];
    int n_runs, n, layer;
    int base[MAX_RUNS], reserved[MAX_ROWS], tables[MAX_RUNS * LAYERS * CAP];
    unsigned char route[MAX_ROWS];
    float gate[MAX_ROWS];
    bool all, keep_all, packed;
};

struct result {
    int sel[MAX_ROWS], exec[MAX_ROWS], visible[MAX_ROWS], slot[MAX_ROWS], run_start[MAX_RUNS + 1], n_sel, n_exec;
    int tables[MAX_RUNS * LAYERS * CAP];
    int pos[MAX_ROWS], run_of[MAX_ROWS]; /* of packed rows, as gate */
    float gate[MAX_ROWS];
};

static void make(struct check *c, struct problem *p, int n_runs, int longest)
{
    *p = (struct problem){
        .n_runs = n_runs, .layer = check_int(c, 0, LAYERS - 1), .all = !check_int(c, 0, 3), .keep_all = check_int(c, 0, 1)};
    p->packed = !p->keep_all && check_int(c, 0, 1);
    int bias = check_int(c, 0, 2);   /* 0: nearly none attend, 2: nearly all */
    int others = check_int(c, 0, 2); /* what those do that do not: skip, the linear path, or either */
    for (int i = 0; i < n_runs; i++) {
        p->runs[i] = (struct kern_run){.row0 = p->n,
                                       .n = check_int(c, 1, longest),
                                       .append = check_int(c, 0, 1),
                                       .table_cap = CAP,
                                       .table_off = (int64_t)i * LAYERS * CAP};
        p->base[i] = check_int(c, 0, CAP - LONG_RUN);
        p->n += p->runs[i].n;
    }
    for (int i = 0; i < MAX_ROWS; i++) {
        p->gate[i] = (float)check_real(c, 0, 1);
        p->reserved[i] = 1000 + check_int(c, 0, 8) + 10 * i;
        bool attends = bias == 1 ? check_int(c, 0, 1) : bias == 0 ? !check_int(c, 0, 9) : check_int(c, 0, 9) > 0;
        p->route[i] = attends ? DECISION_ATTEND : others < 2 ? others : check_int(c, DECISION_SKIP, DECISION_LINEAR);
    }
    for (int i = 0; i < MAX_RUNS * LAYERS * CAP; i++)
        p->tables[i] = -100 - i;
}

static void run(struct check *c, const struct problem *p, struct result *got)
{
    int rows = p->n ? p->n : 1;
    struct {
        void *dev;
        void *host;
        size_t bytes;
    } out[] = {
        {.host = got->sel, .bytes = sizeof(int) * rows},
        {.host = got->exec, .bytes = sizeof(int) * rows},
        {.host = got->visible, .bytes = sizeof(int) * rows},
        {.host = got->slot, .bytes = sizeof(int) * rows},
        {.host = got->run_start, .bytes = sizeof(int) * (p->n_runs + 1)},
        {.host = &got->n_sel, .bytes = sizeof(int)},
        {.host = &got->n_exec, .bytes = sizeof(int)},
        {.host = got->tables, .bytes = sizeof(got->tables)},
        {.host = got->pos, .bytes = sizeof(int) * rows},
        {.host = got->run_of, .bytes = sizeof(int) * rows},
        {.host = got->gate, .bytes = sizeof(float) * rows},
    };
    enum { OUT = sizeof(out) / sizeof(*out) };
    memcpy(got->tables, p->tables, sizeof(got->tables));
    for (int i = 0; i < OUT; i++)
        out[i].dev = check_up(c, out[i].host, out[i].bytes);
    int run_of[MAX_ROWS], pos[MAX_ROWS];
    for (int i = 0; i < p->n_runs; i++)
        for (int r = 0; r < p->runs[i].n; r++) {
            run_of[p->runs[i].row0 + r] = i;
            pos[p->runs[i].row0 + r] = p->base[i] + r;
        }
    void *in[] = {check_up(c, p->runs, sizeof(*p->runs) * p->n_runs),
                  check_up(c, p->base, sizeof(int) * p->n_runs),
                  check_up(c, p->reserved, sizeof(int) * rows),
                  check_up(c, p->route, rows),
                  check_up(c, run_of, sizeof(int) * p->n),
                  check_up(c, pos, sizeof(int) * p->n),
                  check_up(c, p->gate, sizeof(float) * rows)};
    struct kern_step s = {
        .all = {NULL, NULL, p->n}, .pos = in[5], .run_of = in[4], .runs = in[0], .n_runs = p->n_runs, .tables = out[7].dev};
    struct kern_place place = {.sel = out[0].dev,
                               .exec = out[1].dev,
                               .visible = out[2].dev,
                               .slot = out[3].dev,
                               .run_start = out[4].dev,
                               .sel_n = out[5].dev,
                               .exec_n = out[6].dev};
    if (p->packed)
        place.packed = (struct kern_packed){.pos = out[8].dev, .run_of = out[9].dev, .gate = out[10].dev, .gate_of = in[6]};
    check_code(c, "place", c->k->ops->place(c->k, &s, p->layer, p->all ? NULL : in[3], p->keep_all, in[1], in[2], &place));
    for (int i = 0; i < OUT; i++) {
        check_down(c, "place", out[i].host, out[i].dev, out[i].bytes);
        check_drop(c, out[i].dev);
    }
    for (int i = 0; i < 7; i++)
        check_drop(c, in[i]);
}

static bool selected(const struct problem *p, int r)
{
    return p->all || p->route[r] == DECISION_ATTEND;
}
static bool executed(const struct problem *p, int r)
{
    return p->all || p->route[r] != DECISION_SKIP;
}
static bool has_key(const struct problem *p, int r)
{
    return p->keep_all || selected(p, r);
}

/* Rows of [first, r) that satisfy fn. */
static int count(const struct problem *p, int first, int r, bool (*fn)(const struct problem *p, int r))
{
    int n = 0;
    for (int i = first; i < r; i++)
        n += fn(p, i);
    return n;
}

static void expect(struct check *c, const char *name, int at, int got, int want)
{
    if (got != want)
        check_fail(c, "place", "%s[%d] is %d, not %d", name, at, got, want);
}

static void verify(struct check *c, const struct problem *p, const struct result *got)
{
    int tables[MAX_RUNS * LAYERS * CAP], taken = 0;
    memcpy(tables, p->tables, sizeof(tables));
    for (int i = 0; i < p->n_runs; i++) {
        const struct kern_run *run = &p->runs[i];
        expect(c, "run_start", i, got->run_start[i], count(p, 0, run->row0, selected));
        for (int r = run->row0; r < run->row0 + run->n; r++) {
            int before = count(p, 0, r, selected), keys = p->base[i] + count(p, run->row0, r, has_key), slot = -1;
            int number = p->packed ? count(p, 0, r, executed) : r;
            if (has_key(p, r) && run->append) {
                slot = p->reserved[taken++];
                tables[run->table_off + p->layer * run->table_cap + keys] = slot;
            }
            if (selected(p, r))
                expect(c, "sel", before, got->sel[before], number);
            if (executed(p, r))
                expect(c, "exec", count(p, 0, r, executed), got->exec[count(p, 0, r, executed)], r);
            if (has_key(p, r))
                expect(c, "visible", r, got->visible[number], keys + 1);
            if (!p->packed || executed(p, r))
                expect(c, "slot", r, got->slot[number], slot);
            if (p->packed && executed(p, r)) {
                expect(c, "pos", r, got->pos[number], p->base[i] + r - run->row0);
                expect(c, "run_of", r, got->run_of[number], i);
                expect(c, "gate is that row's", r, got->gate[number] == p->gate[r], 1);
            }
        }
    }
    expect(c, "run_start", p->n_runs, got->run_start[p->n_runs], count(p, 0, p->n, selected));
    expect(c, "sel_n", 0, got->n_sel, count(p, 0, p->n, selected));
    expect(c, "exec_n", 0, got->n_exec, count(p, 0, p->n, executed));
    for (int i = 0; i < MAX_RUNS * LAYERS * CAP; i++)
        expect(c, "tables", i, got->tables[i], tables[i]);
}

/* The lists of some layers, each STRIDE ints behind the one before. */
enum { STRIDE = 5 * MAX_ROWS + 3, LISTS = LAYERS * STRIDE };

static struct kern_place lists_of(struct dev_i32 *all, int layer)
{
    struct dev_i32 *at = dev_i32_at(all, (size_t)layer * STRIDE);
    enum { N = MAX_ROWS };
    return (struct kern_place){.sel = at,
                               .exec = dev_i32_at(at, N),
                               .visible = dev_i32_at(at, 2 * N),
                               .slot = dev_i32_at(at, 3 * N),
                               .run_start = dev_i32_at(at, 4 * N),
                               .sel_n = dev_i32_at(at, 5 * N + 1),
                               .exec_n = dev_i32_at(at, 5 * N + 2)};
}
_Static_assert(MAX_RUNS < MAX_ROWS, "run_start has room");

struct lists {
    int ints[LISTS], tables[MAX_RUNS * LAYERS * CAP];
};

/* Places undecided rows in layers 0 and 2, by one op or layer by layer; what place_layers returned, or 1. */
static int place_two(struct check *c, const struct problem *p, bool in_one, struct lists *got)
{
    static const int layers[] = {0, 2};
    int run_of[MAX_ROWS], base[LAYERS * MAX_RUNS], n_append = 0, r = 1;
    for (int i = 0; i < p->n_runs; i++) {
        n_append += p->runs[i].append ? p->runs[i].n : 0;
        for (int j = 0; j < p->runs[i].n; j++)
            run_of[p->runs[i].row0 + j] = i;
    }
    for (int i = 0; i < LAYERS * p->n_runs; i++)
        base[i] = (p->base[i % p->n_runs] + i) % (CAP - LONG_RUN);
    memset(got->ints, 0xee, sizeof(got->ints));
    memcpy(got->tables, p->tables, sizeof(got->tables));
    struct dev_i32 *dev[] = {check_up(c, got->ints, sizeof(got->ints)), check_up(c, got->tables, sizeof(got->tables)),
                             check_up(c, run_of, sizeof(int) * p->n), check_up(c, base, sizeof(int) * LAYERS * p->n_runs),
                             check_up(c, p->reserved, sizeof(p->reserved))};
    void *runs = check_up(c, p->runs, sizeof(*p->runs) * p->n_runs);
    struct kern_step s = {.all = {NULL, NULL, p->n}, .run_of = dev[2], .runs = runs, .n_runs = p->n_runs, .tables = dev[1]};
    for (int i = 0; i < 2 && !in_one; i++) {
        struct kern_place to = lists_of(dev[0], layers[i]);
        check_code(c, "place",
                   c->k->ops->place(c->k, &s, layers[i], NULL, false, dev_i32_at(dev[3], (size_t)layers[i] * p->n_runs),
                                    dev_i32_at(dev[4], (size_t)layers[i] * n_append), &to));
    }
    struct kern_place first = lists_of(dev[0], 0);
    if (in_one)
        r = c->k->ops->place_layers(c->k, &s, layers, 2, dev[3], dev[4], n_append, &first, STRIDE);
    check_down(c, "place_layers", got->ints, dev[0], sizeof(got->ints));
    check_down(c, "place_layers", got->tables, dev[1], sizeof(got->tables));
    for (int i = 0; i < 5; i++)
        check_drop(c, dev[i]);
    check_drop(c, runs);
    return r;
}

static void check_layers(struct check *c, const struct problem *p)
{
    static struct lists one, each;
    if (!c->k->ops->place_layers || p->n == 0)
        return;
    int r = place_two(c, p, true, &one);
    check_code(c, "place_layers", r < 0 ? r : 0);
    if (r != 1) {
        check_fail(c, "place_layers", "%d rows: it returns %d", p->n, r);
        return;
    }
    place_two(c, p, false, &each);
    for (int i = 0; i < LISTS; i++)
        if (one.ints[i] != each.ints[i])
            check_fail(c, "place_layers", "layer %d: int %d of its lists is %d, not %d", i / STRIDE, i % STRIDE, one.ints[i], each.ints[i]);
    if (memcmp(one.tables, each.tables, sizeof(one.tables)))
        check_fail(c, "place_layers", "its slot tables are others than those of place");
}

void check_place(struct check *c)
{
    static struct problem p;
    static struct result got;
    for (int i = 0; i < (c->bench ? 0 : 400); i++) {
        make(c, &p, i % (MAX_RUNS + 1), i % 20 ? SHORT_RUN : LONG_RUN); /* long: more rows than a block of any backend takes */
        memset(&got, 0xee, sizeof(got));
        c->cases++;
        run(c, &p, &got);
        if (p.n)
            verify(c, &p, &got);
        check_layers(c, &p);
        check_digest(c, &got, sizeof(got));
    }
}
