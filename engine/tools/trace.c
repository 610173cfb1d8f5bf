#include "engine/tools/trace.h"
#include <assert.h>
#include <string.h>

int trace_open(struct trace *t, const struct model *m, int max_rows, struct err *err)
{
    *t = (struct trace){.m = m};
    int r = workspace_init(&t->w, m, max_rows, err);
    if (r >= 0)
        r = step_rows_init(&t->rows, max_rows, m->config.n_layers, err);
    if (r >= 0)
        r = batch_init(&t->b, m->k, max_rows, m->config.n_layers, err);
    const struct kv_memory_sizes sizes = {.n_slots = max_rows,
                                          .row_bytes = model_kv_row_bytes(m),
                                          .n_table_entries = (int64_t)max_rows * m->config.n_layers,
                                          .n_state_slots = 1,
                                          .state_slot_bytes = model_state_bytes(m)};
    if (r >= 0)
        r = kv_memory_open(&t->kv, m->k, &sizes, err);
    if (r < 0)
        trace_close(t);
    return r;
}

void trace_close(struct trace *t)
{
    kv_memory_close(&t->kv);
    batch_done(&t->b);
    step_rows_done(&t->rows);
    workspace_done(&t->w);
    memset(t, 0, sizeof(*t));
}

int trace_load(struct trace *t, const int32_t *ids, int n_seqs, int len, int n_want)
{
    struct step_rows *s = &t->rows;
    int n_layers = t->m->config.n_layers;
    assert(n_seqs * len <= s->max_rows && n_want <= len);
    step_rows_clear(s);
    for (int i = 0; i < n_seqs; i++) {
        struct kern_run *run = step_rows_add_run(s, ids + (size_t)i * (size_t)len, len, 0, true, (int64_t)i * n_layers * len, len);
        run->state_out = t->kv.states && i == 0 ? 0 : -1;
        run->select = 1;
        for (int l = 0; l < n_layers; l++)
            *step_rows_base(s, l, i) = 0;
        for (int j = len - n_want; j < len; j++)
            step_rows_want(s, i * len + j, -1, 1);
    }
    for (int l = 0; l < n_layers; l++)
        for (int i = 0; i < s->n_append; i++)
            s->reserved[l * s->n_append + i] = i;
    return batch_upload(&t->b, s, t->m, &t->kv);
}
