/* A request's outputs: allocated before it is queued, filled from the results of steps, completed at the end. */
#include "engine/schedule/sequence.h"
#include "common/monotonic.h"
#include "engine/schedule/ticket.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Words of 4 bytes that all outputs but the routing take. */
static size_t output_words(const struct eval_request *req, int n_layers)
{
    size_t scored = (size_t)(req->n_tokens - req->score_begin), fresh = (size_t)req->max_new, k1 = req->top_k > 1 ? (size_t)req->top_k : 1;
    return (scored + fresh) * (1 + 2 * k1) + fresh + 2 * (size_t)n_layers;
}

size_t sequence_bytes(const struct eval_request *req, int n_layers)
{
    size_t decisions = (size_t)n_layers * (size_t)(req->n_tokens + req->max_new);
    return sizeof(struct sequence) + 4 * output_words(req, n_layers) + (req->want_routing ? decisions : 0) +
           (req->want_probs ? 2 * sizeof(float) * decisions : 0);
}

int sequence_prepare(struct sequence *s, const struct eval_request *req, int n_layers, struct engine_ticket *ticket)
{
    size_t scored = (size_t)(req->n_tokens - req->score_begin), fresh = (size_t)req->max_new, layers = (size_t)n_layers;
    *s = (struct sequence){.req = req,
                           .ticket = ticket,
                           .place = ticket ? &ticket->places[0] : NULL,
                           .k1 = req->top_k > 1 ? req->top_k : 1,
                           .table_off = -1,
                           .state_slot = -1,
                           .state_pos = -1,
                           .blocked_at = -1};
    s->submitted_s = monotonic_seconds();
    s->sampler = (struct sampler_params){req->temperature, req->sample_top_k, req->top_p, req->seed};
    size_t k1 = (size_t)s->k1, words = output_words(req, n_layers);
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
    s->rows_executed = s->rows_routed + layers;
    s->result = (struct eval_result){.queued_s = -1,
                                     .new_tokens = s->new_tokens,
                                     .new_logprobs = s->new_logprobs,
                                     .new_top_ids = s->new_top_ids,
                                     .new_top_logprobs = s->new_top_logprobs};
    s->n_prompt_rows = req->n_tokens - (req->max_new ? 0 : 1);
    s->load = s->table_cap = req->n_tokens - 1 + req->max_new;
    return 0;
}

void sequence_release(struct sequence *s)
{
    free(s->block);
    free(s->routing);
    free(s->probs);
}

/* ---- results ------------------------------------------------------------------------------------------------- */
int sequence_commit_rows(struct sequence *s, const struct sequence_env *e, int n, const uint8_t *route, const int *slots)
{
    int kept = tree_append(e->tree, &s->path, sequence_tokens(s, s->n_kv), n, route, slots);
    size_t rb = (size_t)e->bits->n_bytes;
    memcpy(s->route + (size_t)s->n_kv * rb, route, (size_t)kept * rb);
    s->n_kv += kept;
    s->promised -= (int64_t)kept * e->bits->n_layers;
    return kept;
}

void sequence_commit_probs(struct sequence *s, const struct sequence_env *e, int pos, const struct step *step, int i_run)
{
    const struct step_results *results = &step->results;
    const struct kern_run *run = &step->rows.runs[i_run];
    size_t n_layers = (size_t)e->bits->n_layers;
    if (s->done || !s->probs || !results->prob)
        return;
    for (size_t l = 0; l < n_layers; l++) {
        const struct route_layer *layer = &e->x->limits.layers[l];
        size_t from = l * (size_t)step->rows.n_rows + (size_t)run->row0, to = (size_t)pos * n_layers + l;
        for (int i = 0; layer->routed && i < run->n; i++, from++, to += n_layers) {
            if (layer->nested)
                s->skip_probs[to] = results->skip_prob[from];
            if (!layer->nested || results->route[from] != DECISION_SKIP)
                s->probs[to] = results->prob[from];
        }
    }
}

void sequence_commit_state(struct sequence *s, const struct sequence_env *e, int pos, int slot)
{
    if (s->done || !tree_put_state(e->tree, &s->path, pos, slot))
        slots_give(e->tree->state_pool, &slot, 1);
}

static bool is_eos(const struct sequence_env *e, int32_t id)
{
    for (int i = 0; i < e->n_eos; i++)
        if (e->eos_ids[i] == id)
            return true;
    return false;
}

/* Of the next token, before it is taken. */
static void take_alternatives(struct sequence *s, const struct step_results *sc, int i)
{
    size_t k1 = (size_t)s->k1, at = (size_t)s->n_new * k1, from = (size_t)i * (size_t)sc->top_k;
    memcpy(&s->new_top_ids[at], &sc->top_id[from], k1 * sizeof(int32_t));
    memcpy(&s->new_top_logprobs[at], &sc->top_lp[from], k1 * sizeof(float));
}

/* Returns why the generation ends, FINISH_NONE if it goes on. */
static enum finish_reason take_token(struct sequence *s, const struct sequence_env *e, int32_t token, float logprob)
{
    s->new_tokens[s->n_new] = token;
    s->new_logprobs[s->n_new++] = logprob;
    atomic_store_explicit(&s->n_shown, s->n_new, memory_order_release);
    if (s->req->on_token)
        s->req->on_token(s->req->user);
    if (!s->req->ignore_eos && is_eos(e, token))
        return FINISH_EOS;
    if (atomic_load(&s->stopped))
        return FINISH_STOP;
    return s->n_new == s->req->max_new ? FINISH_LENGTH : FINISH_NONE;
}

static void finish_not_finite(struct sequence *s, const struct sequence_env *e, int pos)
{
    struct err err;
    err_set(&err, ERR_NUMERIC, "the logits after position %d are not finite", pos);
    sequence_finish(s, e, ERR_NUMERIC, &err);
}

void sequence_commit_score(struct sequence *s, const struct sequence_env *e, int pos, const struct step_results *sc, int i)
{
    if (s->done)
        return;
    if (sc->bad[i]) {
        finish_not_finite(s, e, pos);
        return;
    }
    if (pos + 1 >= s->req->n_tokens && s->n_rerun_left) /* the row is among those that run again */
        return;
    if (pos + 1 >= s->req->n_tokens) {
        take_alternatives(s, sc, i);
        if (!s->drawing)
            s->result.finish = take_token(s, e, sc->top_id[(size_t)i * (size_t)sc->top_k], sc->top_lp[(size_t)i * (size_t)sc->top_k]);
        return;
    }
    size_t at = (size_t)(pos + 1 - s->req->score_begin), top = at * (size_t)s->k1, from = (size_t)i * (size_t)sc->top_k;
    s->logprobs[at] = sc->target_lp[i];
    memcpy(&s->top_ids[top], &sc->top_id[from], (size_t)s->k1 * sizeof(int32_t));
    memcpy(&s->top_logprobs[top], &sc->top_lp[from], (size_t)s->k1 * sizeof(float));
    tree_put_score(e->tree, &s->path, pos + 1, s->k1, s->logprobs[at], &s->top_ids[top], &s->top_logprobs[top]);
}

void sequence_commit_draw(struct sequence *s, const struct sequence_env *e)
{
    s->drawing = false;
    if (s->done || s->lost_branch)
        return;
    if (s->draw.token < 0)
        finish_not_finite(s, e, s->req->n_tokens + s->n_new - 1);
    else
        s->result.finish = take_token(s, e, s->draw.token, s->draw.logprob);
}

/* ---- the end ------------------------------------------------------------------------------------------------- */
static int fill_routing(struct sequence *s, const struct route_bits *b)
{
    size_t n = (size_t)s->n_kv;
    if (s->req->want_routing && n && !(s->routing = malloc((size_t)b->n_layers * n)))
        return ERR_NOMEM;
    memset(s->rows_routed, 0, (size_t)b->n_layers * sizeof(int));
    memset(s->rows_executed, 0, (size_t)b->n_layers * sizeof(int));
    route_bits_add_attending(b, s->route, s->n_kv, s->rows_routed);
    route_bits_add_executed(b, s->route, s->n_kv, s->rows_executed);
    for (int l = 0; s->routing && l < b->n_layers; l++)
        for (size_t p = 0; p < n; p++)
            s->routing[(size_t)l * n + p] = (uint8_t)route_bits_get(s->route + p * (size_t)b->n_bytes, l);
    return 0;
}

static void leave(struct sequence *s, const struct sequence_env *e)
{
    tree_leave(e->tree, &s->path);
    sequence_give_tables(s, e);
    if (s->state_slot >= 0)
        slots_give(e->tree->state_pool, &s->state_slot, 1);
    s->state_slot = -1;
    s->promised = 0;
    s->branch_of = NULL;
    s->lost_branch = false;
    free(s->kv_count);
    free(s->route);
    free(s->need);
    s->kv_count = s->rerun_count = NULL;
    s->route = s->need = NULL;
}

/* What the row leaves behind is in slots that its step took, and goes when that is collected. */
static void drop_following(struct sequence *s)
{
    if (!s->follows)
        return;
    s->flight->runs[s->flight_run].seq = s->flight->wants[s->flight_want].seq = NULL;
    s->flight->n_dropped++;
    s->follows = false;
    s->n_flights--;
    s->rows_run--;
}

void sequence_withdraw(struct sequence *s, const struct sequence_env *e)
{
    assert(!s->done && !sequence_away(s));
    drop_following(s);
    leave(s, e);
    s->state_pos = -1;
    s->n_kv = s->n_cached = s->n_rerun_left = s->rerun_pos = s->n_appending = 0;
}

void sequence_preempt(struct sequence *s, const struct sequence_env *e)
{
    sequence_withdraw(s, e);
    s->n_preempted++;
}

void sequence_finish(struct sequence *s, const struct sequence_env *e, int code, const struct err *err)
{
    struct eval_result *r = &s->result;
    drop_following(s);
    assert(!s->done && !s->n_flights);
    if (code >= 0 && s->route && fill_routing(s, e->bits) < 0) {
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
    r->rows_executed = s->rows_executed;
    r->n_routing = s->routing ? s->n_kv : 0;
    r->routing = s->routing;
    r->probs = s->probs;
    r->skip_probs = s->skip_probs;
    leave(s, e);
    s->done = true;
}
