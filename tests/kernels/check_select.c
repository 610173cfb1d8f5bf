/* select_top against a sort, and list_rows. */
#include "kernels/expert_count.h"
#include "tests/check/harness.h"
#include <math.h>

enum { MAX_RUNS = 9, MAX_ROWS = 45000, SKIP = DECISION_SKIP, BELOW = DECISION_LINEAR, ABOVE = DECISION_ATTEND, LEAST = BELOW };

struct problem {
    struct kern_run runs[MAX_RUNS];
    int n_runs, n, least;
    double capacity;
    bool gates;
    unsigned char route[MAX_ROWS];
    float margin[MAX_ROWS], gate[MAX_ROWS];
};

/* Margins with many ties, of few values, spread over all magnitudes, with some that are not finite. */
static float draw(struct check *c, int form)
{
    float v = (float)check_real(c, -2, 2);
    switch (form) {
    case 0: return v;
    case 1: return rintf(v * 4) / 4;
    case 2: return 0.0f * v;
    case 3: return ldexpf(v, check_int(c, -140, 120));
    case 4: return check_int(c, 0, 30) ? v : check_int(c, 0, 2) ? v * INFINITY : NAN;
    default: return -3;
    }
}

static void make(struct check *c, struct problem *p, int n_runs, int longest)
{
    static const double capacities[] = {0.28, 1, 1e-6, 0.5, 0.15};
    *p = (struct problem){.n_runs = n_runs,
                          .least = check_int(c, 0, 1) ? LEAST : SKIP,
                          .capacity = capacities[check_int(c, 0, 4)],
                          .gates = check_int(c, 0, 3)};
    for (int i = 0; i < n_runs; i++) {
        int form = check_int(c, 0, 5), few = check_int(c, 0, 2);
        struct kern_run *run = &p->runs[i];
        *run = (struct kern_run){.row0 = p->n, .n = check_int(c, 1, longest), .select = check_int(c, 0, 4) > 0};
        for (int r = p->n; r < p->n + run->n; r++) {
            p->margin[r] = draw(c, form);
            p->gate[r] = 7;
            p->route[r] = few == 0 ? SKIP : few == 1 ? (unsigned char)check_int(c, SKIP, ABOVE) : BELOW;
        }
        p->n += run->n;
    }
}

/* The rows of one run, best first. */
static const struct problem *sorting;
static int better_first(const void *a, const void *b)
{
    int i = *(const int *)a, j = *(const int *)b;
    float x = sorting->margin[i], y = sorting->margin[j];
    if (isnan(x) || isnan(y))
        return isnan(x) && isnan(y) ? i - j : isnan(x) ? 1 : -1;
    return x > y ? -1 : x < y ? 1 : i - j;
}

static void verify_run(struct check *c, const struct problem *p, const struct kern_run *run, const unsigned char *route, const float *gate)
{
    int *order = malloc(sizeof(int) * run->n), eligible = 0, count;
    for (int r = run->row0; r < run->row0 + run->n; r++)
        if (p->route[r] >= p->least && run->select)
            order[eligible++] = r;
        else if (route[r] != p->route[r] || gate[r] != 7)
            check_fail(c, "select_top", "row %d was changed from %d to %d", r, p->route[r], route[r]);
    sorting = p;
    qsort(order, eligible, sizeof(*order), better_first);
    count = (int)ceil(p->capacity * eligible - 1e-6);
    count = count < 1 ? 1 : count > eligible ? eligible : count;
    for (int i = 0; i < eligible; i++) {
        int r = order[i], want = i < count ? ABOVE : BELOW;
        double g = 1 / (1 + exp(want == ABOVE ? -p->margin[r] : p->margin[r]));
        if (route[r] != want)
            check_fail(c, "select_top", "row %d, number %d of %d with %d to take, margin %.9g, is %d", r, i, eligible, count, p->margin[r],
                       route[r]);
        if (p->gates ? !(fabs(gate[r] - g) < 1e-6) && !isnan(g) : gate[r] != 7)
            check_fail(c, "select_top", "row %d: gate %.9g, not %.9g", r, gate[r], g);
    }
    free(order);
}

static void select_one(struct check *c, struct problem *p)
{
    unsigned char *route = malloc(p->n + 1);
    float *gate = malloc(sizeof(float) * (p->n + 1));
    void *dev[] = {check_up(c, p->route, p->n), check_up(c, p->gate, sizeof(float) * p->n), check_up(c, p->margin, sizeof(float) * p->n),
                   check_up(c, p->runs, sizeof(*p->runs) * p->n_runs)};
    struct kern_step s = {.all = {NULL, NULL, p->n}, .runs = dev[3], .n_runs = p->n_runs};
    struct route_out to = {.route = dev[0], .gate = p->gates ? dev[1] : NULL, .below = BELOW, .above = ABOVE};
    c->cases++;
    check_code(c, "select_top", c->k->ops->select_top(c->k, &to, dev[2], p->least, p->capacity, &s));
    check_down(c, "select_top", route, dev[0], p->n);
    check_down(c, "select_top", gate, dev[1], sizeof(float) * p->n);
    for (int i = 0; i < p->n_runs; i++)
        verify_run(c, p, &p->runs[i], route, gate);
    check_digest(c, route, p->n);
    for (int i = 0; i < 4; i++)
        check_drop(c, dev[i]);
    free(route);
    free(gate);
}

static void list_one(struct check *c, int n, int most)
{
    unsigned char *route = check_fill(c, CHECK_U8, n, 0, most);
    int *idx = check_fill(c, CHECK_I32, n, -9, -1), *got = malloc(sizeof(int) * (n + 1)), m = 0, count = -1;
    void *dev[] = {check_up(c, route, n), check_up(c, idx, sizeof(int) * n), check_up(c, &count, sizeof(int)),
                   check_up(c, &n, sizeof(int))};
    struct rows all = {NULL, check_int(c, 0, 1) ? dev[3] : NULL, n};
    c->cases++;
    check_code(c, "list_rows", c->k->ops->list_rows(c->k, dev[1], dev[2], dev[0], LEAST, all));
    check_down(c, "list_rows", got, dev[1], sizeof(int) * n);
    check_down(c, "list_rows", &count, dev[2], sizeof(int));
    for (int r = 0; r < n; r++)
        if (route[r] >= LEAST && got[m++] != r)
            check_fail(c, "list_rows", "idx[%d] of %d rows is %d, not %d", m - 1, n, got[m - 1], r);
    if (count != m)
        check_fail(c, "list_rows", "%d of %d rows, not %d", count, n, m);
    if (memcmp(got + m, idx + m, sizeof(int) * (n - m)))
        check_fail(c, "list_rows", "wrote past its %d rows", m);
    for (int i = 0; i < 4; i++)
        check_drop(c, dev[i]);
    free(route);
    free(idx);
    free(got);
}

void check_select_top(struct check *c)
{
    static struct problem p;
    static const int lengths[] = {1, 2, 25, 300, 1024, 1025, 5000};
    if (c->bench)
        return;
    if (expert_count(0.28, 25) != 7 || expert_count(0.28, 26) != 8 || expert_count(1, 5) != 5 || expert_count(1e-9, 5) != 1 ||
        expert_count(0.5, 0) != 0)
        check_fail(c, "expert_count", "a count is wrong");
    for (int i = 0; i < 140; i++) {
        make(c, &p, check_int(c, 0, MAX_RUNS), lengths[i % 7]);
        select_one(c, &p);
    }
    make(c, &p, 2, 20480);
    select_one(c, &p);
}

void check_list_rows(struct check *c)
{
    for (int n = 0; n < 40000 && !c->bench; n = n * 2 + 1)
        for (int most = 0; most < 3; most++)
            list_one(c, n, most);
}
