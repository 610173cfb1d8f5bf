/* Loops over row sets. */
#include "kernels/cpu/cpu.h"

enum { GROUP_COST = 16384 }; /* element steps: some microseconds, well above the price of handing out a task */

struct row_loop {
    struct rows n;
    int count, group;
    void (*fn)(void *arg, int r);
    void *arg;
};

static void run_group(void *arg, int i, int thread)
{
    const struct row_loop *l = arg;
    int end = (i + 1) * l->group < l->count ? (i + 1) * l->group : l->count;
    for (int j = i * l->group; j < end; j++)
        l->fn(l->arg, rows_at(&l->n, j));
}

void cpu_for_rows(struct kern_ctx *k, struct rows n, int cost, void (*fn)(void *arg, int r), void *arg)
{
    struct row_loop l = {n, rows_count(n), cost < GROUP_COST ? GROUP_COST / (cost > 0 ? cost : 1) : 1, fn, arg};
    if (l.count)
        parallel_for(cpu_of(k)->pool, (l.count + l.group - 1) / l.group, run_group, &l);
}
