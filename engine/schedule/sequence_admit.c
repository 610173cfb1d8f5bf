/* Admission: what the tree has of a request, and whether there is room for the rest. */
#include "common/monotonic.h"
#include "engine/schedule/sequence.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct path_reader {
    struct sequence *s;
    const struct sequence_env *e;
};

/* Of a node's tokens with K and V, which begin at position `start`, how many the sequence takes; 0 or less: none. */
static int tokens_taken(const struct sequence *s, const struct tree_node *node, int start)
{
    return node->n_kv < s->n_cached - start ? node->n_kv : s->n_cached - start;
}

/* Copies a node's decisions to where its tokens are in the sequence. */
static void read_route(void *arg, struct tree_node *node, int start)
{
    struct path_reader *r = arg;
    int n = tokens_taken(r->s, node, start);
    size_t rb = (size_t)r->e->bits->n_bytes;
    if (n > 0)
        memcpy(r->s->route + (size_t)start * rb, node->route, (size_t)n * rb);
}

/* read_slots where every token has K and V in every layer. */
static void read_all_slots(const struct path_reader *r, const struct tree_node *node, int start)
{
    struct sequence *s = r->s;
    int n_layers = r->e->bits->n_layers, n = tokens_taken(s, node, start);
    for (int l = 0; l < n_layers && n > 0; l++) {
        int *to = r->e->table_host + (size_t)l * (size_t)s->table_cap + (size_t)(s->rerun_count[l] -= n);
        for (int i = 0; i < n; i++)
            to[i] = node->slots[(size_t)i * (size_t)n_layers + (size_t)l];
    }
}

/* Spreads a node's slots, which lie token by token, over the tables of the layers. Nodes come from the leaf up, so tables fill from the end.
 * The last row may be one that the tree has and the sequence has no use for. */
static void read_slots(void *arg, struct tree_node *node, int start)
{
    struct path_reader *r = arg;
    struct sequence *s = r->s;
    const struct route_bits *b = r->e->bits;
    int at = node->n_slots;
    if (at == node->n_kv * b->n_layers) {
        read_all_slots(r, node, start);
        return;
    }
    for (int i = node->n_kv - 1; i >= 0; i--) {
        const uint8_t *route = node->route + (size_t)i * (size_t)b->n_bytes;
        for (int l = b->n_layers - 1; l >= 0; l--) {
            if (!route_bits_has_kv(b, route, l))
                continue;
            at--;
            if (start + i < s->n_cached)
                r->e->table_host[(size_t)l * (size_t)s->table_cap + (size_t)--s->rerun_count[l]] = node->slots[at];
        }
    }
}

/* The tree's part of the sequence: decisions, key counts and block tables. */
static int take_prefix(struct sequence *s, const struct sequence_env *e)
{
    struct path_reader reader = {s, e};
    int n_layers = e->bits->n_layers;
    if (!s->n_cached)
        return 0;
    tree_walk_up(&s->path, read_route, &reader);
    route_bits_add_kv(e->bits, s->route, s->n_cached, s->kv_count);
    memcpy(s->rerun_count, s->kv_count, (size_t)n_layers * sizeof(int));
    tree_walk_up(&s->path, read_slots, &reader); /* counts rerun_count down to 0 */
    return e->x->ops->write_table(e->x, s->table_off, e->table_host, (int64_t)n_layers * s->table_cap);
}

/* The score of token p goes to the result, if the tree has it. */
static bool take_score(struct sequence *s, int p)
{
    size_t i = (size_t)(p - s->req->score_begin), top = i * (size_t)s->k1;
    return tree_get_score(&s->path, p, s->k1, &s->logprobs[i], &s->top_ids[top], &s->top_logprobs[top]);
}

/* Marks the rows whose logits must be computed; scores that the tree has go straight to the result. */
static void take_scores(struct sequence *s)
{
    for (int p = s->req->score_begin; p < s->req->n_tokens; p++)
        if (!take_score(s, p))
            s->need[p - 1] = NEED_SCORE;
    if (s->req->max_new)
        s->need[s->req->n_tokens - 1] = NEED_SCORE;
    for (int p = 0; s->req->want_probs && p < s->n_cached; p++)
        s->need[p] |= NEED_PROBS;
}

/* Marks the rows from the latest kept copy of the router states on up to position pos. Returns the copy's position. */
static int need_states(struct sequence *s, int pos)
{
    int from;
    tree_find_state(&s->path, pos, &from);
    for (int p = from; p < pos; p++)
        s->need[p] |= NEED_STATE;
    return from;
}

/* Cached rows that run again. Where routers have states, a row needs those that precede it. */
static void mark_reruns(struct sequence *s, const struct sequence_env *e)
{
    int cached = s->n_cached < s->n_prompt_rows ? s->n_cached : s->n_prompt_rows, p = s->n_cached;
    if (e->state_every) {
        if (s->n_cached < s->table_cap)
            p = need_states(s, s->n_cached);
        while (--p >= 0)
            if (p < cached && s->need[p])
                p = need_states(s, p);
    }
    for (p = 0; p < cached; p++)
        s->n_rerun_left += s->need[p] != 0;
}

static int allocate_probs(struct sequence *s, const struct sequence_env *e)
{
    size_t n = (size_t)e->bits->n_layers * (size_t)s->table_cap;
    s->probs = malloc(2 * n * sizeof(float));
    for (size_t i = 0; s->probs && i < 2 * n; i++)
        s->probs[i] = NAN;
    s->skip_probs = s->probs ? s->probs + n : NULL;
    return s->probs ? 0 : ERR_NOMEM;
}

static int allocate_running(struct sequence *s, const struct sequence_env *e)
{
    size_t l = (size_t)e->bits->n_layers, rows = (size_t)s->table_cap;
    s->kv_count = calloc(2 * l, sizeof(int));
    s->route = malloc(rows * (size_t)e->bits->n_bytes);
    s->need = calloc(rows, 1);
    if (!s->kv_count || !s->route || !s->need)
        return ERR_NOMEM;
    s->rerun_count = s->kv_count + l;
    return s->req->want_probs && !s->probs ? allocate_probs(s, e) : 0; /* one that was preempted keeps what it has */
}

static enum admission fail(struct sequence *s, const struct sequence_env *e, int code)
{
    struct err err;
    err_set(&err, code, "no memory to run the request");
    sequence_finish(s, e, code, &err);
    return ADMIT_FAILED;
}

/* ---- room ---------------------------------------------------------------------------------------------------------- */
static bool take_tables(struct sequence *s, const struct sequence_env *e, bool lone)
{
    int64_t entries = (int64_t)e->bits->n_layers * s->table_cap;
    if (lone && e->kept_tables && (s->table_off = extents_take(e->kept_tables, entries)) >= 0)
        s->table_off += e->kept_base;
    else
        s->table_off = extents_take(e->tables, entries);
    return s->table_off >= 0;
}

void sequence_give_tables(struct sequence *s, const struct sequence_env *e)
{
    int64_t entries = (int64_t)e->bits->n_layers * s->table_cap;
    if (s->table_off >= 0 && e->kept_tables && s->table_off >= e->kept_base)
        extents_give(e->kept_tables, s->table_off - e->kept_base, entries);
    else if (s->table_off >= 0)
        extents_give(e->tables, s->table_off, entries);
    s->table_off = -1;
}

/* KV slots for the rows to come if the first n_cached are there. */
static int64_t slots_for(const struct sequence *s, const struct sequence_env *e, int n_cached, int ahead)
{
    int64_t rows = (int64_t)s->n_prompt_rows + s->n_new + ahead;
    return ((rows < s->table_cap ? rows : s->table_cap) - n_cached) * e->bits->n_layers;
}

/* The sequence has the tree's first `cached` tokens, or would have if `from`, who computes some of them, were done (NULL: nobody). */
static enum admission enter(struct sequence *s, const struct sequence_env *e, const struct admission_terms *terms,
                            const struct sequence *from, int cached)
{
    const struct eval_request *q = s->req;
    if (tree_available(e->tree) < terms->promised + slots_for(s, e, cached, terms->ahead) || !take_tables(s, e, terms->lone))
        return ADMIT_WAIT_ROOM;
    int r = tree_enter(e->tree, s, from, q->tokens, q->n_tokens, s->n_prompt_rows, &s->path, &s->n_cached);
    if (r < 0)
        return fail(s, e, r);
    if (s->n_cached > s->table_cap) /* the last token's row may be cached too, but this request has no use for it */
        s->n_cached = s->table_cap;
    s->promised = slots_for(s, e, from ? cached : s->n_cached, terms->ahead);
    if (tree_available(e->tree) < terms->promised + s->promised ||
        (e->state_every && (s->state_slot = tree_take_state(e->tree, terms->states_kept)) < 0)) {
        tree_leave(e->tree, &s->path);
        sequence_give_tables(s, e);
        s->promised = 0;
        return ADMIT_WAIT_ROOM;
    }
    s->n_kv = s->n_cached;
    if (s->result.queued_s < 0)
        s->result.queued_s = monotonic_seconds() - s->submitted_s;
    r = allocate_running(s, e);
    if (r < 0)
        return fail(s, e, r);
    r = take_prefix(s, e);
    if (r < 0) {
        sequence_withdraw(s, e);
        return ADMIT_LOST;
    }
    if (!s->n_new) /* one that was preempted later has all its scores */
        take_scores(s);
    return ADMIT_DONE;
}

enum admission sequence_admit(struct sequence *s, const struct sequence_env *e, const struct admission_terms *terms,
                              const struct sequence **ret_owner)
{
    const struct eval_request *q = s->req;
    const void *owner = NULL;
    if (s->table_cap == 0) /* one token, nothing to score or generate: no row is needed */
        return ADMIT_DONE;
    int cached = e->tree->shared ? tree_probe(e->tree, q->tokens, q->n_tokens, s->n_prompt_rows, &s->blocked_at, &owner) : 0;
    *ret_owner = owner;
    if (cached < 0 && !terms->by_itself)
        return ADMIT_WAIT_PREFIX;
    cached = cached < 0 ? s->blocked_at : cached < s->table_cap ? cached : s->table_cap;
    enum admission a = enter(s, e, terms, NULL, cached);
    if (a == ADMIT_DONE)
        mark_reruns(s, e);
    return a;
}

/* ---- branches ------------------------------------------------------------------------------------------------------ */
/* Who computes the next row that s needs, if that can be branched from; *ret_at: how many tokens s shares with it. NULL: nobody. One that draws and wants
 * scores of what it shares waits: a token that is drawn too early cannot be taken back. */
static const struct sequence *branch_point(struct sequence *s, const struct sequence_env *e, int *ret_at)
{
    const struct eval_request *q = s->req;
    const void *owner = NULL;
    if (!e->tree->shared || !e->x->limits.branches || s->req->want_probs || s->table_cap == 0 ||
        tree_probe(e->tree, q->tokens, q->n_tokens, s->n_prompt_rows, &s->blocked_at, &owner) >= 0)
        return NULL;
    const struct sequence *o = owner;
    int at = tree_probe_through(e->tree, q->tokens, q->n_tokens, o);
    if (o->where != SEQUENCE_RUNNING || o->done || o->n_flights || o->drawing || o->branch_of || at <= s->blocked_at ||
        at > o->n_prompt_rows || at > s->n_prompt_rows || (sequence_draws(s) && q->score_begin < at))
        return NULL;
    *ret_at = at;
    return o;
}

enum admission sequence_join(struct sequence *s, const struct sequence_env *e, const struct admission_terms *terms, int64_t max_rows)
{
    int at = 0, end = s->n_prompt_rows + s->n_new;
    const struct sequence *from = branch_point(s, e, &at);
    if (!from || end - at + 1 > max_rows)
        return ADMIT_WAIT_PREFIX;
    enum admission a = enter(s, e, terms, from, at);
    if (a != ADMIT_DONE)
        return a;
    s->branch_of = from;
    s->branch_begin = s->n_kv;
    s->n_kv = s->n_cached = at;
    s->rerun_pos = at - 1;
    s->n_rerun_left = s->need[at - 1] != 0;
    if (sequence_due(s))
        return ADMIT_DONE;
    sequence_withdraw(s, e); /* it wants nothing but what the other computes */
    return ADMIT_WAIT_PREFIX;
}

void sequence_take_branch(struct sequence *s, const struct sequence_env *e)
{
    struct path_reader reader = {s, e};
    s->lost_branch = s->branch_of->n_kv < s->n_cached;
    if (s->lost_branch) {
        s->branch_of = NULL;
        tree_leave(e->tree, &s->path); /* now: nobody may find what nobody computes, and its token may be drawn for some time yet */
        return;
    }
    tree_walk_up(&s->path, read_route, &reader);
    route_bits_add_kv(e->bits, s->route + (size_t)s->branch_begin * (size_t)e->bits->n_bytes, s->n_cached - s->branch_begin, s->kv_count);
}

void sequence_take_branch_scores(struct sequence *s, const struct sequence_env *e)
{
    int last = s->req->n_tokens - 1;
    s->branch_of = NULL;
    s->rerun_pos = 0;
    for (int p = s->req->score_begin; p < s->n_cached; p++)
        if (s->need[p - 1] && take_score(s, p))
            s->need[p - 1] = 0;
    mark_reruns(s, e);
    memset(s->need + s->n_cached, 0, (size_t)(s->table_cap - s->n_cached)); /* those that it appended */
    if (!s->n_rerun_left || !s->req->max_new)
        return;
    s->n_rerun_left++; /* the last one was among those, or the last that it shares, and ran */
    s->need[last] = NEED_SCORE;
}
