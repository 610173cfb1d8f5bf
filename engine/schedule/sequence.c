/* A request's rows: admitted against the tree, packed into steps, committed from their results. */
#include "engine/schedule/sequence.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Tokens from position pos on, as far as the prompt or what was generated goes. */
static const int32_t *tokens_from(const struct sequence *s, int pos)
{
    return pos < s->req->n_tokens ? &s->req->tokens[pos] : &s->new_tokens[pos - s->req->n_tokens];
}

/* Words of 4 bytes that all outputs but the routing take. */
static size_t output_words(const struct eval_request *req, const struct model *m)
{
    size_t scored = (size_t)(req->n_tokens - req->score_begin), fresh = (size_t)req->max_new, k1 = req->top_k > 1 ? (size_t)req->top_k : 1;
    return (scored + fresh) * (1 + 2 * k1) + fresh + (size_t)m->config.n_layers;
}

size_t sequence_bytes(const struct eval_request *req, const struct model *m)
{
    size_t routing = req->want_routing ? (size_t)m->config.n_layers * (size_t)(req->n_tokens + req->max_new) : 0;
    return sizeof(struct sequence) + 4 * output_words(req, m) + routing;
}

int sequence_prepare(struct sequence *s, const struct eval_request *req, const struct model *m, struct engine_ticket *ticket)
{
    size_t scored = (size_t)(req->n_tokens - req->score_begin), fresh = (size_t)req->max_new;
    *s = (struct sequence){.req = req, .ticket = ticket, .k1 = req->top_k > 1 ? req->top_k : 1, .table_off = -1};
    s->sampler = (struct sampler_params){req->temperature, req->sample_top_k, req->top_p, req->seed};
    size_t k1 = (size_t)s->k1, words = output_words(req, m);
    float *at = s->block = calloc(words ? words : 1, 4);
    if (!at)
        return ERR_NOMEM;
    s->logprobs = at;
    s->top_logprobs = (at += scored);
    s->new_logprobs = (at += scored * k1);
    s->new_top_logprobs = (at += fresh);
    s->top_ids = (int32_t *)(at += fresh * k1);
    s->new_top_ids = s->top_ids + scored * k1;
    s->new_tokens = s->new_top_ids + fresh * k1;
    s->rows_routed = s->new_tokens + fresh;
    s->result = (struct eval_result){.new_tokens = s->new_tokens,
                                     .new_logprobs = s->new_logprobs,
                                     .new_top_ids = s->new_top_ids,
                                     .new_top_logprobs = s->new_top_logprobs};
    s->n_prompt_rows = req->n_tokens - (req->max_new ? 0 : 1);
    s->table_cap = req->n_tokens - 1 + req->max_new;
    return 0;
}

void sequence_release(struct sequence *s)
{
    free(s->block);
    free(s->routing);
}

/* ---- admission ---------------------------------------------------------------------------------------------- */
struct path_reader {
    struct sequence *s;
    const struct sequence_env *e;
    int n_layers;
};

static void count_row(const struct prefix_tree *t, const uint8_t *route, int *count)
{
    for (int l = 0; l < t->n_layers; l++)
        count[l] += tree_has_kv(t, route, l);
}

/* Copies a node's routing bits to where its tokens are in the sequence. */
static void read_route(void *arg, struct tree_node *node, int start)
{
    struct path_reader *r = arg;
    int n = node->n_kv < r->s->n_cached - start ? node->n_kv : r->s->n_cached - start;
    size_t rb = (size_t)r->e->tree->route_bytes;
    if (n > 0)
        memcpy(r->s->route + (size_t)start * rb, node->route, (size_t)n * rb);
}

/* Spreads a node's slots, which lie token by token, over the tables of the layers. Nodes come from the leaf up, so tables fill from the end.
 * The last row may be one that the tree has and the sequence has no use for. */
static void read_slots(void *arg, struct tree_node *node, int start)
{
    struct path_reader *r = arg;
    struct sequence *s = r->s;
    const struct prefix_tree *t = r->e->tree;
    int at = node->n_slots;
    for (int i = node->n_kv - 1; i >= 0; i--) {
        const uint8_t *route = node->route + (size_t)i * (size_t)t->route_bytes;
        for (int l = r->n_layers - 1; l >= 0; l--) {
            if (!tree_has_kv(t, route, l))
                continue;
            at--;
            if (start + i < s->n_cached)
                r->e->table_host[(size_t)l * (size_t)s->table_cap + (size_t)--s->rerun_count[l]] = node->slots[at];
        }
    }
}

/* The tree's part of the sequence: routing bits, key counts and slot tables. */
static int take_prefix(struct sequence *s, const struct sequence_env *e)
{
    struct path_reader reader = {s, e, e->tree->n_layers};
    if (!s->n_cached)
        return 0;
    tree_walk_up(&s->path, read_route, &reader);
    for (int p = 0; p < s->n_cached; p++)
        count_row(e->tree, s->route + (size_t)p * (size_t)e->tree->route_bytes, s->kv_count);
    memcpy(s->rerun_count, s->kv_count, (size_t)reader.n_layers * sizeof(int));
    tree_walk_up(&s->path, read_slots, &reader); /* counts rerun_count down to 0 */
    return e->kv->k->backend->upload(e->kv->k, e->kv->tables + s->table_off, e->table_host,
                                     (size_t)reader.n_layers * (size_t)s->table_cap * sizeof(int));
}

/* Marks the rows whose logits must be computed; scores that the tree has go straight to the result. */
static void take_scores(struct sequence *s)
{
    for (int p = s->req->score_begin; p < s->req->n_tokens; p++) {
        size_t i = (size_t)(p - s->req->score_begin), top = i * (size_t)s->k1;
        s->need[p - 1] = !tree_get_score(&s->path, p, s->k1, &s->logprobs[i], &s->top_ids[top], &s->top_logprobs[top]);
    }
    if (s->req->max_new)
        s->need[s->req->n_tokens - 1] = 1;
    for (int p = 0; p < s->n_cached && p < s->n_prompt_rows; p++)
        s->n_rerun_left += s->need[p];
}

static int allocate_running(struct sequence *s, const struct sequence_env *e)
{
    size_t l = (size_t)e->tree->n_layers, rows = (size_t)s->table_cap;
    s->kv_count = calloc(2 * l, sizeof(int));
    s->route = malloc(rows * (size_t)e->tree->route_bytes);
    s->need = calloc(rows, 1);
    if (!s->kv_count || !s->route || !s->need)
        return ERR_NOMEM;
    s->rerun_count = s->kv_count + l;
    return 0;
}

static enum admission fail(struct sequence *s, const struct sequence_env *e, int code)
{
    struct err err;
    err_set(&err, code, code == ERR_NOMEM ? "no memory to run the request" : "copying to the device failed");
    sequence_finish(s, e, code, &err);
    return ADMIT_FAILED;
}

enum admission sequence_admit(struct sequence *s, const struct sequence_env *e, int64_t promised)
{
    const struct eval_request *q = s->req;
    if (s->table_cap == 0) /* one token, nothing to score or generate: no row is needed */
        return ADMIT_DONE;
    if (e->tree->shared && tree_probe(e->tree, q->tokens, q->n_tokens, s->n_prompt_rows) < 0)
        return ADMIT_WAIT_PREFIX;
    int64_t entries = (int64_t)e->tree->n_layers * s->table_cap;
    if (s->table_off < 0 && (s->table_off = kv_tables_take(e->kv, entries)) < 0)
        return ADMIT_WAIT_ROOM;
    int r = tree_enter(e->tree, s, q->tokens, q->n_tokens, s->n_prompt_rows, &s->path, &s->n_cached);
    if (r < 0)
        return fail(s, e, r);
    int64_t need = (int64_t)(s->table_cap - (s->n_cached < s->table_cap ? s->n_cached : s->table_cap)) * e->tree->n_layers;
    if (tree_available(e->tree) < promised + need) {
        tree_leave(e->tree, &s->path);
        kv_tables_give(e->kv, s->table_off, entries);
        s->table_off = -1;
        return ADMIT_WAIT_ROOM;
    }
    if (s->n_cached > s->table_cap) /* the last token's row may be cached too, but this request has no use for it */
        s->n_cached = s->table_cap;
    s->promised = need;
    s->n_kv = s->n_cached;
    r = allocate_running(s, e);
    if (r >= 0)
        r = take_prefix(s, e);
    if (r < 0)
        return fail(s, e, r);
    take_scores(s);
    return ADMIT_DONE;
}

/* ---- packing ------------------------------------------------------------------------------------------------ */
/* Positions whose tokens are known and whose rows are still to be appended. */
static int append_due(const struct sequence *s)
{
    int known = s->n_new ? s->req->n_tokens + s->n_new : s->n_prompt_rows;
    return known > s->n_kv ? known - s->n_kv : 0;
}

int sequence_due(const struct sequence *s)
{
    return s->done || s->in_flight || !s->table_cap ? 0 : s->n_rerun_left + append_due(s);
}

bool sequence_goes_on(const struct sequence *s)
{
    return s->n_rerun_left || s->n_prompt_rows > s->n_kv + s->n_appending || s->n_new + 1 < s->req->max_new;
}

static void add_run(struct sequence *s, const struct sequence_env *e, struct batch *b, int pos, int n, bool append, const int *base,
                    struct step_run *runs, struct step_run *wants)
{
    int run = b->n_runs, row0 = b->n_rows;
    for (int l = 0; l < e->tree->n_layers; l++)
        *batch_base(b, l, run) = base[l];
    runs[run] = (struct step_run){s, pos};
    batch_add_run(b, tokens_from(s, pos), n, pos, append, s->table_off, s->table_cap);
    for (int i = 0; i < n; i++) {
        int p = pos + i;
        if (p < s->n_prompt_rows && !s->need[p])
            continue;
        wants[batch_want(b, row0 + i, p + 1 < s->req->n_tokens ? s->req->tokens[p + 1] : -1)] = (struct step_run){s, p};
    }
    s->rows_run += n;
}

/* Runs of consecutive rows that are needed again, from rerun_pos on. */
static int pack_reruns(struct sequence *s, const struct sequence_env *e, struct batch *b, int n, struct step_run *runs,
                       struct step_run *wants)
{
    const struct prefix_tree *t = e->tree;
    int packed = 0;
    while (packed < n && s->n_rerun_left) {
        while (!s->need[s->rerun_pos])
            count_row(t, s->route + (size_t)s->rerun_pos++ * (size_t)t->route_bytes, s->rerun_count);
        int len = 1;
        while (packed + len < n && len < s->n_rerun_left && s->need[s->rerun_pos + len])
            len++;
        add_run(s, e, b, s->rerun_pos, len, false, s->rerun_count, runs, wants);
        for (int i = 0; i < len; i++)
            count_row(t, s->route + (size_t)s->rerun_pos++ * (size_t)t->route_bytes, s->rerun_count);
        s->n_rerun_left -= len;
        packed += len;
    }
    return packed;
}

void sequence_pack(struct sequence *s, const struct sequence_env *e, struct batch *b, int n, struct step_run *runs, struct step_run *wants)
{
    s->in_flight = true;
    n -= pack_reruns(s, e, b, n, runs, wants);
    int due = append_due(s);
    s->n_appending = n < due ? n : due;
    if (s->n_appending)
        add_run(s, e, b, s->n_kv, s->n_appending, true, s->kv_count, runs, wants);
}

/* ---- results ------------------------------------------------------------------------------------------------- */
int sequence_commit_rows(struct sequence *s, const struct sequence_env *e, int n, const uint8_t *route, const int *slots)
{
    int kept = tree_append(e->tree, &s->path, tokens_from(s, s->n_kv), n, route, slots);
    size_t rb = (size_t)e->tree->route_bytes;
    memcpy(s->route + (size_t)s->n_kv * rb, route, (size_t)kept * rb);
    s->n_kv += kept;
    s->promised -= (int64_t)kept * e->tree->n_layers;
    return kept;
}

/* Takes the next token: the drawn one, or the best. Returns why the generation ends, FINISH_NONE if it goes on. */
static enum finish take_token(struct sequence *s, const struct sequence_env *e, int target, const struct scores *sc, int i)
{
    size_t k1 = (size_t)s->k1, at = (size_t)s->n_new * k1, from = (size_t)i * (size_t)sc->top_k;
    bool drawn = target >= 0;
    s->new_tokens[s->n_new] = drawn ? target : sc->top_id[from];
    s->new_logprobs[s->n_new] = drawn ? sc->target_lp[i] : sc->top_lp[from];
    memcpy(&s->new_top_ids[at], &sc->top_id[from], k1 * sizeof(int32_t));
    memcpy(&s->new_top_logprobs[at], &sc->top_lp[from], k1 * sizeof(float));
    int32_t token = s->new_tokens[s->n_new++];
    atomic_store_explicit(&s->n_shown, s->n_new, memory_order_release);
    if (s->req->on_token)
        s->req->on_token(s->req->user);
    if (!s->req->ignore_eos && model_config_is_eos(&e->m->config, token))
        return FINISH_EOS;
    if (atomic_load(&s->stopped))
        return FINISH_STOP;
    return s->n_new == s->req->max_new ? FINISH_LENGTH : FINISH_NONE;
}

void sequence_commit_score(struct sequence *s, const struct sequence_env *e, int pos, int target, const struct scores *sc, int i)
{
    if (s->done)
        return;
    if (sc->bad[i]) {
        struct err err;
        err_set(&err, ERR_NUMERIC, "the logits after position %d are not finite", pos);
        sequence_finish(s, e, ERR_NUMERIC, &err);
        return;
    }
    if (pos + 1 >= s->req->n_tokens) {
        s->result.finish = take_token(s, e, target, sc, i);
        return;
    }
    size_t at = (size_t)(pos + 1 - s->req->score_begin), top = at * (size_t)s->k1, from = (size_t)i * (size_t)sc->top_k;
    s->logprobs[at] = sc->target_lp[i];
    memcpy(&s->top_ids[top], &sc->top_id[from], (size_t)s->k1 * sizeof(int32_t));
    memcpy(&s->top_logprobs[top], &sc->top_lp[from], (size_t)s->k1 * sizeof(float));
    tree_put_score(e->tree, &s->path, pos + 1, s->k1, s->logprobs[at], &s->top_ids[top], &s->top_logprobs[top]);
}

/* ---- the end ------------------------------------------------------------------------------------------------- */
/* Positions that attended in layer l. Where unselected rows leave no K and V, their count tells. */
static int count_routed(const struct sequence *s, const struct sequence_env *e, int l)
{
    const struct prefix_tree *t = e->tree;
    if (e->m->plan[l].kind == LAYER_DENSE)
        return s->n_kv;
    if (!(t->kv_mask[l >> 3] >> (l & 7) & 1))
        return s->kv_count[l];
    int n = 0;
    for (int p = 0; p < s->n_kv; p++)
        n += s->route[(size_t)p * (size_t)t->route_bytes + (size_t)(l >> 3)] >> (l & 7) & 1;
    return n;
}

static int fill_routing(struct sequence *s, const struct sequence_env *e)
{
    const struct prefix_tree *t = e->tree;
    size_t n = (size_t)s->n_kv, rb = (size_t)t->route_bytes;
    if (s->req->want_routing && n && !(s->routing = malloc((size_t)t->n_layers * n)))
        return ERR_NOMEM;
    for (int l = 0; l < t->n_layers; l++) {
        s->rows_routed[l] = count_routed(s, e, l);
        for (size_t p = 0; s->routing && p < n; p++)
            s->routing[(size_t)l * n + p] = s->route[p * rb + (size_t)(l >> 3)] >> (l & 7) & 1;
    }
    return 0;
}

static void leave(struct sequence *s, const struct sequence_env *e)
{
    tree_leave(e->tree, &s->path);
    if (s->table_off >= 0)
        kv_tables_give(e->kv, s->table_off, (int64_t)e->tree->n_layers * s->table_cap);
    s->table_off = -1;
    s->promised = 0;
    free(s->kv_count);
    free(s->route);
    free(s->need);
    s->kv_count = s->rerun_count = NULL;
    s->route = s->need = NULL;
}

void sequence_finish(struct sequence *s, const struct sequence_env *e, int code, const struct err *err)
{
    struct eval_result *r = &s->result;
    assert(!s->done && !s->in_flight);
    if (code >= 0 && s->route && fill_routing(s, e) < 0) {
        r->code = err_set(&r->err, ERR_NOMEM, "no memory for the routing of %d positions", s->n_kv);
    } else if (code < 0) {
        r->code = code;
        if (err)
            r->err = *err;
    }
    r->n_scored = s->req->n_tokens - s->req->score_begin;
    r->logprobs = s->logprobs;
    r->top_ids = s->top_ids;
    r->top_logprobs = s->top_logprobs;
    r->n_new = s->n_new;
    r->n_rows = s->n_kv;
    r->rows_computed = s->rows_run;
    r->rows_cached = s->n_cached;
    r->rows_routed = s->rows_routed;
    r->n_routing = s->routing ? s->n_kv : 0;
    r->routing = s->routing;
    leave(s, e);
    s->done = true;
}
