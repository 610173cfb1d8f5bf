/* Packing of one step and its single copy to the device. */
#include "engine/model/batch.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

int batch_init(struct batch *b, struct kern_ctx *k, int max_rows, int n_layers, struct err *err)
{
    *b = (struct batch){.max_rows = max_rows, .n_layers = n_layers, .k = k};
    size_t n = (size_t)max_rows, l = (size_t)n_layers, word = sizeof(int);
    b->ids = malloc(n * word);
    b->pos = malloc(n * word);
    b->run_of = malloc(n * word);
    b->runs = malloc(n * sizeof(*b->runs));
    b->base = malloc(n * l * word);
    b->reserved = malloc(n * l * word);
    b->want_row = malloc(n * word);
    b->want_target = malloc(n * word);
    size_t bytes = n * sizeof(*b->runs) + (5 + 2 * l) * n * word;
    b->staging = malloc(bytes);
    b->device = k->backend->alloc(k, bytes);
    if (b->ids && b->pos && b->run_of && b->runs && b->base && b->reserved && b->want_row && b->want_target && b->staging && b->device)
        return 0;
    batch_done(b);
    return err_set(err, ERR_NOMEM, "no memory for steps of %d rows", max_rows);
}

void batch_done(struct batch *b)
{
    if (!b->k)
        return;
    free(b->ids);
    free(b->pos);
    free(b->run_of);
    free(b->runs);
    free(b->base);
    free(b->reserved);
    free(b->want_row);
    free(b->want_target);
    free(b->staging);
    b->k->backend->free(b->k, b->device);
    memset(b, 0, sizeof(*b));
}

void batch_clear(struct batch *b)
{
    b->n_rows = b->n_runs = b->n_append = b->n_want = 0;
}

struct kern_run *batch_add_run(struct batch *b, const int32_t *ids, int n, int pos0, bool append, int64_t table_off, int table_cap)
{
    assert(n > 0 && b->n_rows + n <= b->max_rows);
    struct kern_run *run = &b->runs[b->n_runs];
    *run = (struct kern_run){.row0 = b->n_rows, .n = n, .append = append, .table_cap = table_cap, .table_off = table_off};
    for (int i = 0; i < n; i++) {
        b->ids[b->n_rows + i] = ids[i];
        b->pos[b->n_rows + i] = pos0 + i;
        b->run_of[b->n_rows + i] = b->n_runs;
    }
    b->n_rows += n;
    b->n_runs++;
    if (append)
        b->n_append += n;
    return run;
}

int batch_want(struct batch *b, int row, int target)
{
    b->want_row[b->n_want] = row;
    b->want_target[b->n_want] = target;
    return b->n_want++;
}

/* Appends an array to the staging block; returns where it will lie on the device. */
static struct dev_bytes *stage(struct batch *b, size_t *used, const void *src, size_t bytes)
{
    struct dev_bytes *at = dev_bytes_in(b->device, *used);
    memcpy(b->staging + *used, src, bytes);
    *used += bytes;
    return at;
}

static struct dev_i32 *stage_ints(struct batch *b, size_t *used, const int *src, size_t n)
{
    return dev_i32_in(stage(b, used, src, n * sizeof(*src)), 0);
}

int batch_upload(struct batch *b, struct dev_i32 *tables)
{
    size_t used = 0, n = (size_t)b->n_rows;
    const struct dev_runs *runs =
        dev_runs_in(stage(b, &used, b->runs, (size_t)b->n_runs * sizeof(*b->runs)), 0); /* first, for its alignment */
    b->d_ids = stage_ints(b, &used, b->ids, n);
    const struct dev_i32 *pos = stage_ints(b, &used, b->pos, n);
    const struct dev_i32 *run_of = stage_ints(b, &used, b->run_of, n);
    b->d_base = dev_i32_in(b->device, used);
    for (int l = 0; l < b->n_layers; l++)
        stage_ints(b, &used, batch_base(b, l, 0), (size_t)b->n_runs);
    b->d_want_row = stage_ints(b, &used, b->want_row, (size_t)b->n_want);
    b->d_want_target = stage_ints(b, &used, b->want_target, (size_t)b->n_want);
    b->step =
        (struct kern_step){.all = {.n_max = b->n_rows}, .pos = pos, .run_of = run_of, .runs = runs, .n_runs = b->n_runs, .tables = tables};
    b->d_reserved = dev_i32_in(b->device, used); /* the bulk, straight from where it is */
    int r = b->k->backend->upload(b->k, b->device, b->staging, used);
    size_t reserved = (size_t)b->n_layers * (size_t)b->n_append * sizeof(int);
    return r < 0 ? r : b->k->backend->upload(b->k, DEV_BYTES(b->d_reserved), b->reserved, reserved);
}
