/* The rows of one step, packed without padding: ids, positions, runs, key bases, reserved slots and wanted rows.
 * The scheduler fills the host side; batch_upload copies what is used to the device in one piece. */
#pragma once
#include "kernels/backend.h"

struct batch {
    int max_rows, n_layers;
    int n_rows, n_runs, n_append, n_want;
    /* host, capacity max_rows unless noted */
    int *ids, *pos, *run_of;
    struct kern_run *runs;       /* n_runs <= n_rows */
    int *base;                   /* [n_layers][max_rows]: keys of run i's sequence in layer l before the run, at base[l * max_rows + i] */
    int *reserved;               /* [n_layers * n_append]: layer l may place its rows in reserved[l * n_append ..] */
    int *want_row, *want_target; /* rows whose logits are wanted, ascending; the target token or -1 */
    /* device, valid after batch_upload */
    struct kern_ctx *k;
    struct dev_bytes *device;
    char *staging;
    const struct dev_i32 *d_ids, *d_base, *d_reserved, *d_want_row;
    struct dev_i32 *d_want_target;
    struct kern_step step;
};

int batch_init(struct batch *b, struct kern_ctx *k, int max_rows, int n_layers, struct err *err);
void batch_done(struct batch *b); /* copes with half-built */
void batch_clear(struct batch *b);

/* Adds a run of n rows at position pos0; base is filled by the caller at batch_base(b, layer, run). Returns the run. */
struct kern_run *batch_add_run(struct batch *b, const int32_t *ids, int n, int pos0, bool append, int64_t table_off, int table_cap);
static inline int *batch_base(struct batch *b, int layer, int run)
{
    return &b->base[(size_t)layer * (size_t)b->max_rows + (size_t)run];
}
/* Rows must be added in ascending order; returns the index of the wanted row. */
int batch_want(struct batch *b, int row, int target);

/* Copies to the device and fills b->step; tables: the KV cache's slot tables. */
int batch_upload(struct batch *b, struct dev_i32 *tables);
/* Device pointers of one layer. */
static inline const struct dev_i32 *batch_layer_base(const struct batch *b, int layer)
{
    return dev_i32_at(b->d_base, (size_t)layer * (size_t)b->n_runs);
}
static inline const struct dev_i32 *batch_layer_reserved(const struct batch *b, int layer)
{
    return dev_i32_at(b->d_reserved, (size_t)layer * (size_t)b->n_append);
}
