/* Runs the pairs of a job through the engine, a wave at a time.
 *
 * The sequences of 65,536 pairs with long contexts would take gigabytes; two waves keep the engine busy, and what the answer needs of a
 * result is little. */
#include "server/api/score.h"
#include <stdlib.h>
#include <string.h>

/* ---- a wave ---- */

static int pair_length(const struct score_pair *p)
{
    return (p->front >= 0) + p->n_context + p->n_continuation;
}

static int wave_size(const struct score_job *j, int first, size_t *ret_tokens)
{
    int n = 0;
    *ret_tokens = 0;
    while (first + n < j->n_pairs && n < SCORE_WAVE_PAIRS && *ret_tokens < SCORE_WAVE_TOKENS)
        *ret_tokens += (size_t)pair_length(&j->pairs[first + n++]);
    return n;
}

static void fill_request(const struct score_job *j, const struct score_pair *p, int32_t *tokens, struct eval_request *q)
{
    int n = pair_length(p), at = p->front >= 0;
    tokens[0] = p->front;
    memcpy(tokens + at, p->context, (size_t)p->n_context * sizeof(*tokens));
    memcpy(tokens + at + p->n_context, p->continuation, (size_t)p->n_continuation * sizeof(*tokens));
    *q = (struct eval_request){
        .tokens = tokens, .n_tokens = n, .score_begin = n - p->n_continuation, .top_p = 1, .want_routing = j->routing};
}

static void free_wave(struct score_job *j, struct score_wave *w)
{
    api_free(j->call, w->ticket, w->reqs, w->n);
    charge_give(api_charge(j->call), w->bytes);
    free(w->tokens);
    free(w->reqs);
    *w = (struct score_wave){0};
}

static int make_wave(struct score_job *j, struct score_wave *w, struct err *err)
{
    size_t n_tokens;
    *w = (struct score_wave){.first = j->n_sent, .n = wave_size(j, j->n_sent, &n_tokens)};
    w->bytes = n_tokens * sizeof(*w->tokens) + (size_t)w->n * sizeof(*w->reqs);
    if (!charge_take(api_charge(j->call), w->bytes)) {
        w->bytes = 0;
        return charge_error(api_charge(j->call), err);
    }
    w->tokens = malloc(n_tokens * sizeof(*w->tokens));
    w->reqs = malloc((size_t)w->n * sizeof(*w->reqs));
    if (!w->tokens || !w->reqs)
        return err_field(err, ERR_NOMEM, "requests", "no memory for %d sequences", w->n);
    int32_t *at = w->tokens;
    for (int i = 0; i < w->n; i++) {
        const struct score_pair *p = &j->pairs[w->first + i];
        fill_request(j, p, at, &w->reqs[i]);
        at += pair_length(p);
    }
    w->reqs[0].call = (uint64_t)(uintptr_t)j; /* the waves take turns as one */
    return api_submit(j->call, w->reqs, w->n, &w->ticket, err);
}

/* What is full now may have room when an own wave is out. */
static bool can_wait(const struct score_job *j, int code)
{
    return code == ERR_BUSY && j->n_waves > 0;
}

int score_waves_send(struct score_job *j, struct err *err)
{
    int r = 0;
    while (r >= 0 && j->n_waves < SCORE_WAVES && j->n_sent < j->n_pairs) {
        struct score_wave *w = &j->waves[j->n_waves];
        struct err why = {0};
        r = make_wave(j, w, &why);
        if (r >= 0) {
            j->n_sent += w->n;
            j->n_waves++;
            continue;
        }
        free_wave(j, w);
        if (can_wait(j, r))
            return 0;
        if (err)
            *err = why;
    }
    if (r < 0)
        score_cancel(j);
    return r;
}

/* ---- results ---- */

static int keep_routing(struct score_job *j, struct score_pair *p, const struct eval_result *r)
{
    size_t layers = (size_t)j->call->server->info->config->n_layers, row = ((size_t)r->n_routing + 3) / 4;
    p->n_routing = r->n_routing;
    p->routing = arena_alloc(&j->call->arena, layers, row ? row : 1);
    for (size_t l = 0; p->routing && l < layers; l++)
        for (size_t i = 0; i < (size_t)r->n_routing; i++)
            p->routing[l * row + i / 4] |= (uint8_t)(r->routing[l * (size_t)r->n_routing + i] << (2 * (i % 4)));
    return p->routing ? 0 : ERR_NOMEM;
}

static int keep_result(struct score_job *j, struct score_pair *p, const struct eval_result *r)
{
    p->greedy = true;
    for (int i = 0; i < r->n_scored; i++) {
        p->logprob += r->logprobs[i];
        p->greedy &= r->logprobs[i] == r->top_logprobs[i];
    }
    if (j->tokens) {
        p->logprobs = arena_alloc(&j->call->arena, (size_t)r->n_scored, sizeof(*p->logprobs));
        if (!p->logprobs)
            return ERR_NOMEM;
        memcpy(p->logprobs, r->logprobs, (size_t)r->n_scored * sizeof(*p->logprobs));
    }
    return j->routing ? keep_routing(j, p, r) : 0;
}

int score_waves_take(struct score_job *j, struct err *err)
{
    struct score_wave *w = &j->waves[0];
    int r = api_wait(j->call, w->ticket, err);
    if (r >= 0)
        r = api_check(w->ticket, w->n, w->first, j->n_pairs, "continuation", err);
    if (r >= 0)
        r = api_usage_add(j->call, w->ticket, w->n, &j->usage, err);
    for (int i = 0; i < w->n && r >= 0; i++)
        if (keep_result(j, &j->pairs[w->first + i], engine_result(w->ticket, i)) < 0)
            r = err_set(err, ERR_NOMEM, "no memory for the results of %d continuations", j->n_pairs);
    free_wave(j, w);
    memmove(j->waves, j->waves + 1, (SCORE_WAVES - 1) * sizeof(*w));
    j->waves[SCORE_WAVES - 1] = (struct score_wave){0};
    j->n_waves--;
    return r;
}

void score_cancel(struct score_job *j)
{
    for (int i = 0; i < j->n_waves; i++)
        free_wave(j, &j->waves[i]);
    j->n_waves = 0;
}
