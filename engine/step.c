/* From grants to committed rows and scores. */
#include "engine/step.h"
#include <string.h>

#define REPLAY_ROWS 128

static const struct sampler_params *sampler_of(void *user, int i, uint64_t *ret_index)
{
    const struct scheduler *s = user;
    const struct sequence *q = s->wants[i].seq;
    if (s->wants[i].pos + 1 < q->req->n_tokens || q->req->temperature <= 0)
        return NULL;
    *ret_index = (uint64_t)q->n_new;
    return &q->sampler;
}

/* What the rows of a step have in common while they are committed. */
struct commit {
    struct scheduler *s;
    uint8_t dense[MODEL_MAX_LAYERS / 8];   /* bits of the layers without a router */
    int routed[MODEL_MAX_LAYERS], n_routed;
};

static void commit_init(struct commit *c, struct scheduler *s)
{
    *c = (struct commit){.s = s};
    for (int l = 0; l < s->batch.n_layers; l++)
        if (s->m->plan[l].kind == LAYER_DENSE)
            c->dense[l >> 3] |= (uint8_t)(1 << (l & 7));
        else
            c->routed[c->n_routed++] = l;
}

/* Routing bits of a step row, and the slots that the device gave it: it placed the rows of each layer in order. */
static int read_row(const struct commit *c, int row, uint8_t *bits)
{
    struct scheduler *s = c->s;
    const struct batch *b = &s->batch;
    int n_slots = 0, *cursor = s->cursor;
    memcpy(bits, c->dense, (size_t)s->tree.route_bytes);
    for (int i = 0; i < c->n_routed; i++) {
        int l = c->routed[i];
        if (s->route_host[(size_t)l * (size_t)b->n_rows + (size_t)row]) {
            bits[l >> 3] |= (uint8_t)(1 << (l & 7));
            s->counts.rows_routed[l]++;
        }
    }
    for (int i = 0; i < s->tree.route_bytes; i++)
        for (unsigned left = bits[i] | s->tree.kv_mask[i]; left; left &= left - 1) {
            int l = i * 8 + __builtin_ctz(left);
            s->row_slots[n_slots++] = b->reserved[(size_t)l * (size_t)b->n_append + (size_t)cursor[l]++];
        }
    return n_slots;
}

static void commit_row(const struct commit *c, struct sequence *q, int row)
{
    struct scheduler *s = c->s;
    uint8_t bits[MODEL_MAX_LAYERS / 8];
    int n_slots = read_row(c, row, bits);
    int r = q->done ? ERR_NOMEM : sequence_commit_row(q, &s->env, bits, s->row_slots, n_slots);
    if (r >= 0)
        return;
    kv_cache_give(&s->kv, s->row_slots, n_slots);
    if (!q->done) {
        struct err err;
        err_set(&err, r, "no memory to keep the request's computed rows");
        sequence_finish(q, &s->env, r, &err);
    }
}

static void commit_run(const struct commit *c, int i)
{
    struct scheduler *s = c->s;
    const struct kern_run *run = &s->batch.runs[i];
    struct sequence *q = s->runs[i].seq;
    int n_layers = s->batch.n_layers;
    *(run->append ? &s->counts.rows_computed : &s->counts.rows_rescored) += (uint64_t)run->n;
    if (!run->append)
        return;
    memcpy(s->cursor_before, s->cursor, (size_t)n_layers * sizeof(int));
    for (int row = run->row0; row < run->row0 + run->n; row++)
        commit_row(c, q, row);
    for (int l = 0; l < n_layers; l++) {
        if (!q->done)
            q->kv_count[l] += s->cursor[l] - s->cursor_before[l];
        if (s->m->plan[l].kind == LAYER_DENSE)
            s->counts.rows_routed[l] += (uint64_t)run->n;
    }
}

static void commit_rows(struct scheduler *s)
{
    const struct batch *b = &s->batch;
    struct commit c;
    commit_init(&c, s);
    memset(s->cursor, 0, (size_t)b->n_layers * sizeof(int));
    for (int i = 0; i < b->n_runs; i++)
        commit_run(&c, i);
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

static int issue_layers(void *arg)
{
    struct scheduler *s = arg;
    return forward_layers(s->m, &s->w, &s->batch, &s->kv);
}

/* Decoding steps (one new row for each of a few sequences) come one after another: they are replayed where the backend can. Their counts say
 * which buffers and offsets the ops are given. */
static int run_layers(struct scheduler *s)
{
    const struct batch *b = &s->batch;
    const int key[] = {b->n_rows, b->n_runs, b->n_append, b->n_want};
    if (!s->m->k->ops->replay || b->n_rows > REPLAY_ROWS || b->n_runs != b->n_rows || b->n_append != b->n_rows)
        return issue_layers(s);
    return s->m->k->ops->replay(s->m->k, key, sizeof(key), issue_layers, s);
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
        r = run_layers(s);
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
