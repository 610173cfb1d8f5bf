/* branch_counts and branch_keys: keys that runs share with another run of their step. */
#include "tests/check/harness.h"
#include <string.h>

enum { LAYERS = 3, OWN = 2 }; /* OWN: rows of a run that branches */

/* Runs 0, 1 + siblings, ...: each appended, of up to `longest` rows, and behind each `siblings` runs that branch from it. */
struct problem {
    int n_runs, n_rows, n_branches, cap;
    struct kern_run *runs;
    struct kern_branch *branches;
    unsigned char *route;
    int *base, *tables; /* [LAYERS, n_runs]; [n_runs, LAYERS, cap] */
};

static void make(struct check *c, struct problem *p, int owners, int siblings, int longest)
{
    int at = 0;
    *p = (struct problem){.n_runs = owners * (1 + siblings), .n_branches = owners * siblings, .cap = 2 * longest + OWN + 9};
    p->runs = calloc((size_t)p->n_runs + 1, sizeof(*p->runs));
    p->branches = calloc((size_t)p->n_branches + 1, sizeof(*p->branches));
    p->base = check_fill(c, CHECK_I32, (size_t)LAYERS * p->n_runs, 0, 9);
    p->tables = check_fill(c, CHECK_I32, (size_t)p->n_runs * LAYERS * p->cap, 0, 1 << 20);
    for (int i = 0; i < p->n_runs; i++) {
        int from = i - i % (1 + siblings), n = i == from ? check_int(c, 1, longest) : OWN;
        p->runs[i] = (struct kern_run){.row0 = p->n_rows, .n = n, .append = i % 2 == 0, .table_cap = p->cap};
        p->runs[i].table_off = (int64_t)i * LAYERS * p->cap;
        p->n_rows += n;
        if (i == from)
            continue;
        struct kern_branch *b = &p->branches[at++];
        *b = (struct kern_branch){.run = i, .from = from, .n = check_int(c, 0, p->runs[from].n)};
        b->n_listed = i % 3 ? check_int(c, b->n, p->runs[from].n) : 0;
        for (int l = 0; l < LAYERS; l++)
            p->base[l * p->n_runs + i] = p->base[l * p->n_runs + from];
    }
    p->route = check_fill(c, CHECK_U8, (size_t)p->n_rows + 1, DECISION_SKIP, DECISION_ATTEND);
}

static int keys_of(const struct problem *p, int run, int n, bool routed)
{
    int keys = 0;
    for (int r = p->runs[run].row0; r < p->runs[run].row0 + n; r++)
        keys += !routed || p->route[r] == DECISION_ATTEND;
    return keys;
}

static int *entry(const struct problem *p, int *tables, int run, int layer, int i)
{
    return &tables[((size_t)run * LAYERS + layer) * p->cap + i];
}

static void expect_counts(struct check *c, const struct problem *p, const int *got, int layer)
{
    int *want = malloc(sizeof(int) * ((size_t)p->n_runs + 1));
    memcpy(want, p->base + layer * p->n_runs, sizeof(int) * p->n_runs);
    for (int i = 0; i < p->n_branches; i++)
        want[p->branches[i].run] += keys_of(p, p->branches[i].from, p->branches[i].n, true);
    for (int i = 0; i < p->n_runs; i++)
        if (got[i] != want[i])
            check_fail(c, "branch_counts", "run %d of %d: %d keys, not %d", i, p->n_runs, got[i], want[i]);
    free(want);
}

static void expect_keys(struct check *c, const struct problem *p, const int *got, bool routed)
{
    size_t n = (size_t)p->n_runs * LAYERS * p->cap;
    int *want = malloc(sizeof(int) * (n + 1));
    memcpy(want, p->tables, sizeof(int) * n);
    for (int i = 0; i < p->n_branches; i++)
        for (int l = routed ? 1 : 0; l < (routed ? 2 : LAYERS); l++) {
            const struct kern_branch *b = &p->branches[i];
            int before = p->base[l * p->n_runs + b->from], keys = keys_of(p, b->from, b->n_listed, routed);
            for (int j = before; j < before + keys; j++)
                *entry(p, want, b->run, l, j) = *entry(p, p->tables, b->from, l, j);
        }
    if (memcmp(want, got, sizeof(int) * n))
        check_fail(c, "branch_keys", "%d runs, %d branches, %s: other tables", p->n_runs, p->n_branches, routed ? "routed" : "all layers");
    free(want);
}

/* A problem on the device. */
struct device_problem {
    void *runs, *branches, *route, *base, *tables;
    struct kern_step step;
};

static struct device_problem put(struct check *c, const struct problem *p)
{
    struct device_problem d = {.runs = check_up(c, p->runs, sizeof(*p->runs) * p->n_runs),
                               .branches = check_up(c, p->branches, sizeof(*p->branches) * p->n_branches),
                               .route = check_up(c, p->route, p->n_rows),
                               .base = check_up(c, p->base, sizeof(int) * (size_t)LAYERS * p->n_runs),
                               .tables = check_up(c, p->tables, sizeof(int) * (size_t)p->n_runs * LAYERS * p->cap)};
    d.step = (struct kern_step){.all = {.n_max = p->n_rows},
                                .n_runs = p->n_runs,
                                .runs = d.runs,
                                .branches = d.branches,
                                .n_branches = p->n_branches,
                                .tables = d.tables};
    return d;
}

static void drop(struct check *c, const struct device_problem *d)
{
    check_drop(c, d->runs);
    check_drop(c, d->branches);
    check_drop(c, d->route);
    check_drop(c, d->base);
    check_drop(c, d->tables);
}

static void run_counts(struct check *c, const struct problem *p)
{
    struct device_problem d = put(c, p);
    size_t bytes = sizeof(int) * (size_t)LAYERS * p->n_runs;
    int *got = malloc(bytes + 1);
    check_code(c, "branch_counts", c->k->ops->branch_counts(c->k, &d.step, d.route, dev_i32_at(d.base, p->n_runs)));
    check_down(c, "branch_counts", got, d.base, bytes);
    expect_counts(c, p, got + p->n_runs, 1);
    check_digest(c, got, bytes);
    free(got);
    drop(c, &d);
}

/* Of a layer with decisions, or of all layers without. */
static void run_keys_of(struct check *c, const struct problem *p, bool routed)
{
    static const int layers[] = {1, 0, 2};
    struct device_problem d = put(c, p);
    size_t bytes = sizeof(int) * (size_t)p->n_runs * LAYERS * p->cap;
    int *got = malloc(bytes + 1);
    check_code(c, "branch_keys", c->k->ops->branch_keys(c->k, &d.step, layers, routed ? 1 : 3, routed ? d.route : NULL, d.base));
    check_down(c, "branch_keys", got, d.tables, bytes);
    expect_keys(c, p, got, routed);
    check_digest(c, got, bytes);
    free(got);
    drop(c, &d);
}

static void run_keys(struct check *c, const struct problem *p)
{
    run_keys_of(c, p, true);
    run_keys_of(c, p, false);
}

static void all(struct check *c, void (*run)(struct check *c, const struct problem *p))
{
    static const int longest[] = {1, 7, 255, 256, 257, 1000};
    for (int i = 0; i < 6 && !c->bench; i++)
        for (int siblings = 0; siblings < 5; siblings++) {
            struct problem p;
            make(c, &p, siblings == 4 ? 20 : 2, siblings, longest[i]);
            run(c, &p);
            c->cases++;
            free(p.runs);
            free(p.branches);
            free(p.route);
            free(p.base);
            free(p.tables);
        }
}

void check_branch_counts(struct check *c)
{
    all(c, run_counts);
}

void check_branch_keys(struct check *c)
{
    all(c, run_keys);
}
