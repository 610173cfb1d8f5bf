/* The rows of one step on a device: a copy of step_rows.h, made in one piece. */
#pragma once
#include "engine/model/kv_memory.h"
#include "engine/model/model.h"
#include "engine/model/step_rows.h"
#include "kernels/backend.h"

struct batch {
    int n_layers, n_rows, n_runs, n_append, n_want, n_follow; /* of the latest upload */
    struct kern_ctx *k;
    struct dev_bytes *device;                                        /* all of it */
    char *staging;                                                   /* on the host */
    const struct dev_i32 *d_ids, *d_after, *d_reserved, *d_want_row; /* d_after: as the op `follow` takes it */
    struct dev_i32 *d_base, *d_want_target;
    struct kern_step step;
};

int batch_init(struct batch *b, struct kern_ctx *k, int max_rows, int n_layers, struct err *err);
void batch_done(struct batch *b); /* copes with half-built and with a zeroed struct */

/* Copies the rows to the device and fills b->step for a model on its memory. `rows` may be changed afterwards. */
int batch_upload(struct batch *b, const struct step_rows *rows, const struct model *m, const struct kv_memory *kv);
/* Device pointers of one layer. */
static inline struct dev_i32 *batch_layer_base(const struct batch *b, int layer)
{
    return dev_i32_at(b->d_base, (size_t)layer * (size_t)b->n_runs);
}
static inline const struct dev_i32 *batch_layer_reserved(const struct batch *b, int layer)
{
    return dev_i32_at(b->d_reserved, (size_t)layer * (size_t)b->n_append);
}
