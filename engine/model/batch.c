/* The single copy of a step's rows to a device. */
#include "engine/model/batch.h"
#include <stdlib.h>
#include <string.h>

enum { STAGED_SLOTS = 64 << 10 };

int batch_init(struct batch *b, struct kern_ctx *k, int max_rows, int n_layers, struct err *err)
{
    *b = (struct batch){.n_layers = n_layers, .k = k};
    size_t n = (size_t)max_rows, bytes = n * (sizeof(struct kern_run) + sizeof(struct kern_save) + sizeof(struct kern_branch)) +
                                         ((7 + 2 * (size_t)n_layers) * n + 1) * sizeof(int);
    b->staging = malloc(bytes);
    b->device = k->backend->alloc(k, bytes);
    if (b->staging && b->device)
        return 0;
    batch_done(b);
    return err_set(err, ERR_NOMEM, "no memory for steps of %d rows", max_rows);
}

void batch_done(struct batch *b)
{
    if (!b->k)
        return;
    free(b->staging);
    b->k->backend->free(b->k, b->device);
    memset(b, 0, sizeof(*b));
}

/* Appends an array to the staging block; returns where it will lie on the device. */
static struct dev_bytes *stage(struct batch *b, size_t *used, const void *src, size_t bytes)
{
    struct dev_bytes *at = dev_bytes_in(b->device, *used);
    memcpy(b->staging + *used, src, bytes);
    *used += bytes;
    return at;
}

static struct dev_i32 *stage_ints(struct batch *b, size_t *used, const int *src, int n)
{
    return dev_i32_in(stage(b, used, src, (size_t)n * sizeof(*src)), 0);
}

int batch_upload(struct batch *b, const struct step_rows *s, const struct model *m, const struct kv_memory *kv)
{
    size_t used = 0;
    b->n_rows = s->n_rows;
    b->n_runs = s->n_runs;
    b->n_append = s->n_append;
    b->n_want = s->n_want;
    b->n_follow = s->n_follow;
    b->step = (struct kern_step){.all = {.n_max = s->n_rows},
                                 .n_runs = s->n_runs,
                                 .n_branches = s->n_branches,
                                 .tables = kv->tables,
                                 .states = kv->states,
                                 .n_routers = m->weights.n_states,
                                 .state_floats = (int)model_config_state_floats(&m->config)};
    b->step.runs = dev_runs_in(stage(b, &used, s->runs, (size_t)s->n_runs * sizeof(*s->runs)), 0); /* first, for its alignment */
    b->step.saves = dev_saves_in(stage(b, &used, s->saves, (size_t)s->n_saves * sizeof(*s->saves)), 0);
    b->step.branches = dev_branches_in(stage(b, &used, s->branches, (size_t)s->n_branches * sizeof(*s->branches)), 0);
    b->d_ids = stage_ints(b, &used, s->ids, s->n_rows);
    b->step.pos = stage_ints(b, &used, s->pos, s->n_rows);
    b->step.run_of = stage_ints(b, &used, s->run_of, s->n_rows);
    b->d_base = dev_i32_in(b->device, used);
    for (int l = 0; l < b->n_layers; l++)
        stage_ints(b, &used, step_rows_base(s, l, 0), s->n_runs);
    b->d_after = stage_ints(b, &used, s->after, s->n_runs);
    stage_ints(b, &used, s->n_after, s->n_runs);
    stage_ints(b, &used, &s->n_before, 1);
    b->d_want_row = stage_ints(b, &used, s->want_row, s->n_want);
    b->d_want_target = stage_ints(b, &used, s->want_target, s->n_want);
    size_t slots = (size_t)step_rows_slots(s) * sizeof(int);
    b->d_reserved = dev_i32_in(b->device, used);
    if (slots <= STAGED_SLOTS) { /* one copy is soon done */
        memcpy(b->staging + used, s->reserved, slots);
        return b->k->backend->upload(b->k, b->device, b->staging, used + slots);
    }
    int r = b->k->backend->upload(b->k, b->device, b->staging, used);
    /* the bulk, straight from where it is */
    return r < 0 ? r : b->k->backend->upload(b->k, DEV_BYTES(b->d_reserved), s->reserved, slots);
}
