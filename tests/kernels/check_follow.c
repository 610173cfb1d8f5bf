/* follow: key counts that hang on what the step before decided; the others stay. */
#include "tests/check/harness.h"

struct problem {
    int n_layers, n_runs, n_before;
    int *base, *after; /* as the op takes them */
    unsigned char *route;
};

/* longest: rows that a run follows at most. Every third run follows none. */
static void make(struct check *c, struct problem *p, int longest)
{
    int n = p->n_runs;
    p->base = check_fill(c, CHECK_I32, (size_t)p->n_layers * n, -9, 9);
    p->after = check_fill(c, CHECK_I32, 2 * n + 1, 0, p->n_before - 1);
    p->route = check_fill(c, CHECK_U8, (size_t)p->n_layers * p->n_before, DECISION_SKIP, DECISION_ATTEND);
    p->after[2 * n] = p->n_before;
    for (int i = 0; i < n; i++) {
        int most = p->n_before - p->after[i];
        p->after[n + i] = check_int(c, 0, most < longest ? most : longest);
        if (i % 3)
            continue;
        p->after[i] = -1;
        for (int l = 0; l < p->n_layers; l++)
            p->base[l * n + i] = l;
    }
}

static int expected(const struct problem *p, int l, int i)
{
    int base = p->base[l * p->n_runs + i], keys = -1 - base;
    for (int r = p->after[i]; r < p->after[i] + p->after[p->n_runs + i] && base < 0; r++)
        keys += p->route[l * p->n_before + r] == DECISION_ATTEND;
    return base < 0 ? keys : base;
}

static void one(struct check *c, int n_layers, int n_runs, int longest)
{
    struct problem p = {n_layers, n_runs, check_int(c, longest, longest + 200)};
    make(c, &p, longest);
    size_t bytes = sizeof(int) * n_layers * n_runs;
    int *got = malloc(bytes + 1);
    void *dev[] = {check_up(c, p.base, bytes), check_up(c, p.after, sizeof(int) * (2 * n_runs + 1)),
                   check_up(c, p.route, (size_t)n_layers * p.n_before)};
    c->cases++;
    check_code(c, "follow", c->k->ops->follow(c->k, dev[0], n_layers, n_runs, dev[1], dev[2]));
    check_down(c, "follow", got, dev[0], bytes);
    for (int at = 0; at < n_layers * n_runs; at++) {
        int l = at / n_runs, i = at % n_runs;
        if (got[at] != expected(&p, l, i))
            check_fail(c, "follow", "layer %d of run %d of %d: %d keys, not %d", l, i, n_runs, got[at], expected(&p, l, i));
    }
    check_digest(c, got, bytes);
    for (int i = 0; i < 3; i++)
        check_drop(c, dev[i]);
    free(p.base);
    free(p.after);
    free(p.route);
    free(got);
}

void check_follow(struct check *c)
{
    static const int runs[] = {0, 1, 2, 31, 64, 128, 300}, layers[] = {1, 3, 28, 92}, longest[] = {1, 1, 33, 700};
    for (int i = 0; i < 7 && !c->bench; i++)
        for (int j = 0; j < 4; j++)
            one(c, layers[j], runs[i], longest[(i + j) % 4]);
}
