/* Row lists and key places of one layer, and key counts that follow the step before. On the calling thread: it is integers, few a row. */
#include "kernels/cpu/ops.h"
#include <assert.h>

struct placer {
    const struct kern_run *runs;
    const unsigned char *route; /* NULL: every row attends */
    bool keep_all;
    const int *reserved;
    int *tables;
    int layer, n_sel, n_exec, n_taken;
    int *sel, *exec, *run_start, *visible, *slot;
    struct {
        const int *pos; /* of step rows */
        const float *gate_of;
        int *to_pos, *to_run; /* NULL: rows are not packed */
        float *gate;
    } packed;
};

/* Step row r of run `run` becomes a packed row; returns its number. */
static int pack_row(struct placer *p, int run, int r)
{
    int i = p->n_exec;
    p->packed.to_pos[i] = p->packed.pos[r];
    p->packed.to_run[i] = run;
    if (p->packed.gate)
        p->packed.gate[i] = p->packed.gate_of[r];
    return i;
}

/* Row r of `run` leaves K and V, or has them, as key number `key` of its sequence. */
static void place_key(struct placer *p, const struct kern_run *run, int r, int key)
{
    p->visible[r] = key + 1;
    p->slot[r] = -1;
    if (!run->append)
        return;
    int slot = p->reserved[p->n_taken++];
    p->slot[r] = slot;
    p->tables[run->table_off + (int64_t)p->layer * run->table_cap + key] = slot;
}

static void place_run(struct placer *p, int i, int base)
{
    const struct kern_run *run = &p->runs[i];
    p->run_start[i] = p->n_sel;
    for (int r = run->row0, keys = base; r < run->row0 + run->n; r++) {
        int decision = p->route ? p->route[r] : DECISION_ATTEND;
        int at = r; /* its number in the lists */
        if (decision == DECISION_SKIP && p->packed.to_pos)
            continue;
        if (p->packed.to_pos)
            at = pack_row(p, i, r);
        if (decision == DECISION_ATTEND)
            p->sel[p->n_sel++] = at;
        if (decision != DECISION_SKIP)
            p->exec[p->n_exec++] = r;
        if (decision == DECISION_ATTEND || p->keep_all)
            place_key(p, run, at, keys++);
        else
            p->slot[at] = -1;
    }
}

static int place_c(struct kern_ctx *k, const struct kern_step *s, int layer, const struct dev_u8 *route, bool keep_all,
                   const struct dev_i32 *base, const struct dev_i32 *reserved, const struct kern_place *to)
{
    struct placer p = {
        .runs = runs_of(s->runs),
        .route = u8_of(route),
        .keep_all = keep_all,
        .reserved = i32_of(reserved),
        .tables = i32_of(s->tables),
        .layer = layer,
        .sel = i32_of(to->sel),
        .exec = i32_of(to->exec),
        .run_start = i32_of(to->run_start),
        .visible = i32_of(to->visible),
        .slot = i32_of(to->slot),
        .packed = {i32_of(s->pos), f32_of(to->packed.gate_of), i32_of(to->packed.pos), i32_of(to->packed.run_of), f32_of(to->packed.gate)}};
    assert(!(keep_all && to->packed.pos));
    for (int i = 0; i < s->n_runs; i++)
        place_run(&p, i, i32_of(base)[i]);
    p.run_start[s->n_runs] = p.n_sel;
    *i32_of(to->sel_n) = p.n_sel;
    *i32_of(to->exec_n) = p.n_exec;
    return 0;
}

static int follow_c(struct kern_ctx *k, struct dev_i32 *base, int n_layers, int n_runs, const struct dev_i32 *after,
                    const struct dev_u8 *route)
{
    const int *first = i32_of(after), *n = first + n_runs, n_before = n[n_runs];
    for (int l = 0; l < n_layers; l++)
        for (int i = 0; i < n_runs; i++) {
            const unsigned char *decided = u8_of(route) + (size_t)l * n_before + first[i];
            int *keys = i32_of(base) + (size_t)l * n_runs + i;
            if (*keys >= 0)
                continue;
            *keys = -1 - *keys;
            for (int r = 0; r < n[i]; r++)
                *keys += decided[r] == DECISION_ATTEND;
        }
    return 0;
}

void place_init(struct kern_ops *o)
{
    o->follow = follow_c;
    o->place = place_c;
}
