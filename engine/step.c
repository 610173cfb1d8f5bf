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

/* Rows are read back in blocks: within one, a layer at a time, since a layer's bits and slots lie side by side. */
struct commit {
    struct scheduler *s;
    uint8_t dense[MODEL_MAX_LAYERS / 8];   /* bits of the layers without a router */
    uint8_t bits[COMMIT_ROWS][MODEL_MAX_LAYERS / 8];
    int n_slots[COMMIT_ROWS];              /* of s->row_slots + i * n_layers */
};

static void commit_init(struct commit *c, struct scheduler *s)
{
    c->s = s;
    memset(c->dense, 0, sizeof(c->dense));
    for (int l = 0; l < s->batch.n_layers; l++)
        if (s->m->plan[l].kind == LAYER_DENSE)
            c->dense[l >> 3] |= (uint8_t)(1 << (l & 7));
}

/* Routing bits of layer l for n step rows. */
static void read_bits(struct commit *c, int l, int row, int n)
{
    struct scheduler *s = c->s;
    const unsigned char *route = s->route_host + (size_t)l * (size_t)s->batch.n_rows + (size_t)row;
    if (s->m->plan[l].kind == LAYER_DENSE) {
        s->counts.rows_routed[l] += (uint64_t)n;
        return;
    }
    for (int i = 0; i < n; i++) {
        c->bits[i][l >> 3] |= (uint8_t)((route[i] != 0) << (l & 7));
        s->counts.rows_routed[l] += route[i] != 0;
    }
}

/* The slots that the device gave to n rows in layer l: it placed the rows of each layer in order. */
static void read_slots(struct commit *c, int l, int n)
{
    struct scheduler *s = c->s;
    const int *next = s->batch.reserved + (size_t)l * (size_t)s->batch.n_append + (size_t)s->cursor[l];
    size_t layers = (size_t)s->batch.n_layers;
    int taken = 0;
    for (int i = 0; i < n; i++)
        if (tree_has_kv(&s->tree, c->bits[i], l))
            s->row_slots[(size_t)i * layers + (size_t)c->n_slots[i]++] = next[taken++];
    s->cursor[l] += taken;
}

static void commit_row(struct scheduler *s, struct sequence *q, const uint8_t *bits, const int *slots, int n_slots)
{
    int r = q->done ? ERR_NOMEM : sequence_commit_row(q, &s->env, bits, slots, n_slots);
    if (r >= 0)
        return;
    kv_cache_give(&s->kv, slots, n_slots);
    if (!q->done) {
        struct err err;
        err_set(&err, r, "no memory to keep the request's computed rows");
        sequence_finish(q, &s->env, r, &err);
    }
}

static void commit_block(struct commit *c, struct sequence *q, int row, int n)
{
    struct scheduler *s = c->s;
    for (int i = 0; i < n; i++)
        memcpy(c->bits[i], c->dense, (size_t)s->tree.route_bytes);
    memset(c->n_slots, 0, sizeof(c->n_slots));
    for (int l = 0; l < s->batch.n_layers; l++) {
        read_bits(c, l, row, n);
        read_slots(c, l, n);
    }
    for (int i = 0; i < n; i++)
        commit_row(s, q, c->bits[i], s->row_slots + (size_t)i * (size_t)s->batch.n_layers, c->n_slots[i]);
}

static void commit_run(struct commit *c, int i)
{
    struct scheduler *s = c->s;
    const struct kern_run *run = &s->batch.runs[i];
    struct sequence *q = s->runs[i].seq;
    int n_layers = s->batch.n_layers;
    *(run->append ? &s->counts.rows_computed : &s->counts.rows_rescored) += (uint64_t)run->n;
    if (!run->append)
        return;
    memcpy(s->cursor_before, s->cursor, (size_t)n_layers * sizeof(int));
    for (int done = 0; done < run->n; done += COMMIT_ROWS)
        commit_block(c, q, run->row0 + done, run->n - done < COMMIT_ROWS ? run->n - done : COMMIT_ROWS);
    for (int l = 0; l < n_layers && !q->done; l++)
        q->kv_count[l] += s->cursor[l] - s->cursor_before[l];
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
