/* From grants to committed rows and scores. */
#include "engine/step.h"
#include <string.h>

static const struct sampler_params *sampler_of(void *user, int i, uint64_t *ret_index)
{
    const struct scheduler *s = user;
    const struct sequence *q = s->wants[i].seq;
    if (s->wants[i].pos + 1 < q->req->n_tokens || q->req->temperature <= 0)
        return NULL;
    *ret_index = (uint64_t)q->n_new;
    return &q->sampler;
}

/* Routing bits of a step row, and the slots that the device gave it: it placed the rows of each layer in order. */
static int read_row(struct scheduler *s, int row, uint8_t *bits)
{
    const struct batch *b = &s->batch;
    int n_slots = 0;
    memset(bits, 0, (size_t)s->tree.route_bytes);
    for (int l = 0; l < b->n_layers; l++) {
        if (s->m->plan[l].kind == LAYER_DENSE || s->route_host[(size_t)l * (size_t)b->n_rows + (size_t)row]) {
            bits[l >> 3] |= (uint8_t)(1 << (l & 7));
            s->counts.rows_routed[l]++;
        }
        if (tree_has_kv(&s->tree, bits, l))
            s->row_slots[n_slots++] = b->reserved[(size_t)l * (size_t)b->n_append + (size_t)s->cursor[l]++];
    }
    return n_slots;
}

static void commit_rows(struct scheduler *s)
{
    const struct batch *b = &s->batch;
    uint8_t bits[MODEL_MAX_LAYERS / 8];
    memset(s->cursor, 0, (size_t)b->n_layers * sizeof(int));
    for (int i = 0; i < b->n_runs; i++) {
        const struct kern_run *run = &b->runs[i];
        struct sequence *q = s->runs[i].seq;
        *(run->append ? &s->counts.rows_computed : &s->counts.rows_rescored) += (uint64_t)run->n;
        for (int row = run->row0; run->append && row < run->row0 + run->n; row++) {
            int n_slots = read_row(s, row, bits);
            int r = q->done ? ERR_NOMEM : sequence_commit_row(q, &s->env, bits, s->row_slots, n_slots);
            if (r >= 0)
                continue;
            kv_cache_give(&s->kv, s->row_slots, n_slots);
            if (!q->done) {
                struct err err;
                err_set(&err, r, "no memory to keep the request's computed rows");
                sequence_finish(q, &s->env, r, &err);
            }
        }
    }
    for (int l = b->n_layers - 1; l >= 0; l--)
        kv_cache_give(&s->kv, b->reserved + (size_t)l * (size_t)b->n_append + s->cursor[l], b->n_append - s->cursor[l]);
}

static int top_k_of_step(const struct scheduler *s)
{
    int k = 1;
    for (int i = 0; i < s->batch.n_want; i++)
        if (s->wants[i].seq->k1 > k)
            k = s->wants[i].seq->k1;
    return k;
}

int step_run(struct scheduler *s, const struct grant *grants, int n, struct err *err)
{
    struct batch *b = &s->batch;
    batch_clear(b);
    for (int i = 0; i < n; i++)
        if (grants[i].n)
            sequence_pack(grants[i].seq, &s->env, b, grants[i].n, s->runs, s->wants);
    int n_reserved = b->n_append * b->n_layers;
    tree_make_room(&s->tree, n_reserved);
    kv_cache_take(&s->kv, n_reserved, b->reserved);
    int r = batch_upload(b, s->kv.tables);
    if (r >= 0)
        r = forward_layers(s->m, &s->w, b, &s->kv);
    if (r >= 0)
        r = s->m->k->backend->download(s->m->k, s->route_host, s->w.route, (size_t)b->n_layers * (size_t)b->n_rows);
    if (r >= 0)
        r = scores_run(&s->scores, s->m, &s->w, b, top_k_of_step(s), sampler_of, s, err);
    if (r < 0) {
        kv_cache_give(&s->kv, b->reserved, n_reserved);
        return err && err->code < 0 ? r : err_set(err, r, "a step of %d rows failed with %s", b->n_rows, err_name(r));
    }
    s->counts.steps++;
    commit_rows(s);
    for (int i = 0; i < b->n_want; i++)
        sequence_commit_score(s->wants[i].seq, &s->env, s->wants[i].pos, b->want_target[i], &s->scores, i);
    return 0;
}
