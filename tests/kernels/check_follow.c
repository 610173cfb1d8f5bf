/* follow: key counts that hang on what the step before decided; the others stay. */
#include "tests/check/harness.h"

static void one(struct check *c, int n_layers, int n_runs, int n_before)
{
    int n = n_layers * n_runs;
    int *base = check_fill(c, CHECK_I32, n, -9, 9), *after = check_fill(c, CHECK_I32, n_runs + 1, 0, n_before - 1),
        *got = malloc(sizeof(int) * (n + 1));
    unsigned char *route = check_fill(c, CHECK_U8, (size_t)n_layers * n_before, DECISION_SKIP, DECISION_ATTEND);
    after[n_runs] = n_before;
    for (int i = 0; i < n_runs; i++)
        for (int l = 0; l < n_layers && i % 3 == 0; l++) { /* a run that follows none */
            after[i] = -1;
            base[l * n_runs + i] = l;
        }
    void *dev[] = {check_up(c, base, sizeof(int) * n), check_up(c, after, sizeof(int) * (n_runs + 1)),
                   check_up(c, route, (size_t)n_layers * n_before)};
    c->cases++;
    check_code(c, "follow", c->k->ops->follow(c->k, dev[0], n_layers, n_runs, dev[1], dev[2]));
    check_down(c, "follow", got, dev[0], sizeof(int) * n);
    for (int at = 0; at < n; at++) {
        int l = at / n_runs, row = after[at % n_runs];
        int want = base[at] >= 0 ? base[at] : -1 - base[at] + (route[l * n_before + row] == DECISION_ATTEND);
        if (got[at] != want)
            check_fail(c, "follow", "layer %d of run %d of %d: %d keys, not %d", l, at % n_runs, n_runs, got[at], want);
    }
    check_digest(c, got, sizeof(int) * n);
    for (int i = 0; i < 3; i++)
        check_drop(c, dev[i]);
    free(base);
    free(after);
    free(got);
    free(route);
}

void check_follow(struct check *c)
{
    static const int runs[] = {0, 1, 2, 31, 64, 128, 300}, layers[] = {1, 3, 28, 92};
    for (int i = 0; i < 7 && !c->bench; i++)
        for (int j = 0; j < 4; j++)
            one(c, layers[j], runs[i], check_int(c, 1, 200));
}
