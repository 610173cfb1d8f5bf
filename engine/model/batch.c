/* The single copy of a step's rows to a device. */
#include "engine/model/batch.h"
#include <stdlib.h>
#include <string.h>

int batch_init(struct batch *b, struct kern_ctx *k, int max_rows, int n_layers, struct err *err)
{
    *b = (struct batch){.n_layers = n_layers, .k = k};
    size_t n = (size_t)max_rows,
           bytes = n * (sizeof(struct kern_run) + sizeof(struct kern_save)) + (5 + 2 * (size_t)n_layers) * n * sizeof(int);
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
static void *stage(struct batch *b, size_t *used, const void *src, size_t bytes)
{
    char *at = b->device + *used;
    memcpy(b->staging + *used, src, bytes);
    *used += bytes;
    return at;
}

int batch_upload(struct batch *b, const struct step_rows *s, int *tables)
{
    size_t used = 0, word = sizeof(int), n = (size_t)s->n_rows;
    b->n_rows = s->n_rows;
    b->n_runs = s->n_runs;
    b->n_append = s->n_append;
    b->n_want = s->n_want;
    const void *runs = stage(b, &used, s->runs, (size_t)s->n_runs * sizeof(*s->runs)); /* first, for its alignment */
    const void *saves = stage(b, &used, s->saves, (size_t)s->n_saves * sizeof(*s->saves));
    b->d_ids = stage(b, &used, s->ids, n * word);
    const int *pos = stage(b, &used, s->pos, n * word);
    const int *run_of = stage(b, &used, s->run_of, n * word);
    b->d_base = (const int *)(b->device + used);
    for (int l = 0; l < b->n_layers; l++)
        stage(b, &used, step_rows_base(s, l, 0), (size_t)s->n_runs * word);
    b->d_want_row = stage(b, &used, s->want_row, (size_t)s->n_want * word);
    b->d_want_target = stage(b, &used, s->want_target, (size_t)s->n_want * word);
    b->step = (struct kern_step){
        .all = {.n_max = b->n_rows}, .pos = pos, .run_of = run_of, .runs = runs, .n_runs = b->n_runs, .tables = tables, .saves = saves};
    b->d_reserved = (const int *)(b->device + used); /* the bulk, straight from where it is */
    int r = b->k->backend->upload(b->k, b->device, b->staging, used);
    return r < 0 ? r : b->k->backend->upload(b->k, b->device + used, s->reserved, (size_t)step_rows_slots(s) * word);
}
