#include "engine/tools/trace.h"
#include <assert.h>
#include <string.h>

static int open_states(struct trace *t, struct err *err)
{
    const struct model *m = t->m;
    size_t bytes = (size_t)m->weights.n_states * model_config_state_floats(&m->config) * sizeof(float);
    t->states = bytes ? dev_f32_in(m->k->backend->alloc(m->k, bytes), 0) : NULL;
    return t->states || !bytes ? 0 : err_set(err, ERR_NOMEM, "no memory for router states");
}

int trace_open(struct trace *t, const struct model *m, int max_rows, struct err *err)
{
    *t = (struct trace){.m = m};
    int r = workspace_init(&t->w, m, max_rows, err);
    if (r >= 0)
        r = step_rows_init(&t->rows, max_rows, m->config.n_layers, err);
    if (r >= 0)
        r = batch_init(&t->b, m->k, max_rows, m->config.n_layers, err);
    if (r >= 0)
        r = kv_memory_open(&t->kv, m->k, max_rows, model_kv_row_bytes(m), (int64_t)max_rows * m->config.n_layers, err);
    if (r >= 0)
        r = open_states(t, err);
    if (r < 0)
        trace_close(t);
    return r;
}

void trace_close(struct trace *t)
{
    if (t->m)
        t->m->k->backend->free(t->m->k, DEV_BYTES(t->states));
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
        run->state_out = t->states && i == 0 ? 0 : -1;
        run->select = 1;
        for (int l = 0; l < n_layers; l++)
            *step_rows_base(s, l, i) = 0;
        for (int j = len - n_want; j < len; j++)
            step_rows_want(s, i * len + j, -1, 1);
    }
    for (int l = 0; l < n_layers; l++)
        for (int i = 0; i < s->n_append; i++)
            s->reserved[l * s->n_append + i] = i;
    int r = batch_upload(&t->b, s, t->kv.tables);
    t->b.step.states = t->states;
    t->b.step.n_routers = t->m->weights.n_states;
    t->b.step.state_floats = (int)model_config_state_floats(&t->m->config);
    return r;
}
