/* Runs that branch from another run of their step: key counts and slot tables. On the calling thread, as place(). */
#include "kernels/cpu/ops.h"
#include <string.h>

/* Rows row0 .. row0+n-1 that have keys. route NULL: all. */
static int count_keys(const unsigned char *route, int row0, int n)
{
    int keys = 0;
    for (int r = row0; r < row0 + n && route; r++)
        keys += route[r] == DECISION_ATTEND;
    return route ? keys : n;
}

static int branch_counts_c(struct kern_ctx *k, const struct kern_step *s, const struct dev_u8 *route, struct dev_i32 *base)
{
    const struct kern_branch *branches = branches_of(s->branches);
    for (int i = 0; i < s->n_branches; i++)
        i32_of(base)[branches[i].run] += count_keys(u8_of(route), runs_of(s->runs)[branches[i].from].row0, branches[i].n);
    return 0;
}

static int *table_of(const struct kern_step *s, const struct kern_run *run, int layer)
{
    return i32_of(s->tables) + run->table_off + (int64_t)layer * run->table_cap;
}

static int branch_keys_c(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_u8 *route,
                         const struct dev_i32 *base)
{
    const struct kern_run *runs = runs_of(s->runs);
    for (int l = 0; l < n; l++)
        for (int i = 0; i < s->n_branches; i++) {
            const struct kern_branch *b = &branches_of(s->branches)[i];
            const struct kern_run *from = &runs[b->from];
            size_t keys = (size_t)count_keys(u8_of(route), from->row0, b->n_listed);
            int before = i32_of(base)[(size_t)layers[l] * (size_t)s->n_runs + (size_t)b->from];
            memcpy(table_of(s, &runs[b->run], layers[l]) + before, table_of(s, from, layers[l]) + before, keys * sizeof(int));
        }
    return 0;
}

void branch_init(struct kern_ops *o)
{
    o->branch_counts = branch_counts_c;
    o->branch_keys = branch_keys_c;
}
