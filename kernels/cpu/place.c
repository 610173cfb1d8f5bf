/* Row lists and key places of one layer. One pass over the rows, on the calling thread: it is integers, few a row. */
#include "kernels/cpu/ops.h"

struct placer {
    const struct kern_step *s;
    struct kern_place *out;
    int layer, n_sel, n_rest, n_taken;
    const int *reserved;
};

/* Row r of `run` leaves K and V, or has them, as key number `key` of its sequence. */
static void place_key(struct placer *p, const struct kern_run *run, int r, int key)
{
    p->out->visible[r] = key + 1;
    p->out->slot[r] = -1;
    if (!run->append)
        return;
    int slot = p->reserved[p->n_taken++];
    p->out->slot[r] = slot;
    p->s->tables[run->table_off + (int64_t)p->layer * run->table_cap + key] = slot;
}

static void place_run(struct placer *p, int i, const unsigned char *route, bool kv_all, int base)
{
    const struct kern_run *run = &p->s->runs[i];
    p->out->run_start[i] = p->n_sel;
    for (int r = run->row0, keys = base; r < run->row0 + run->n; r++) {
        bool selected = !route || route[r];
        if (selected)
            p->out->sel[p->n_sel++] = r;
        else
            p->out->rest[p->n_rest++] = r;
        if (selected || kv_all)
            place_key(p, run, r, keys++);
        else
            p->out->slot[r] = -1;
    }
}

static int place_c(struct kern_ctx *k, const struct kern_step *s, int layer, const unsigned char *route, bool kv_all, const int *base,
                   const int *reserved, struct kern_place *ret)
{
    struct placer p = {.s = s, .out = ret, .layer = layer, .reserved = reserved};
    for (int i = 0; i < s->n_runs; i++)
        place_run(&p, i, route, kv_all, base[i]);
    ret->run_start[s->n_runs] = p.n_sel;
    *ret->sel_n = p.n_sel;
    *ret->rest_n = p.n_rest;
    return 0;
}

void place_init(struct kern_ops *o)
{
    o->place = place_c;
}
