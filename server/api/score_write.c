/* The answers of the loglikelihood endpoints: what they share, and that of POST /v1/loglikelihood. */
#include "server/api/score.h"

/* Whole numbers, so that clients may add them up. */
static void write_cost(struct writer *w, const struct sequences_cost *cost)
{
    writer_key(w, "cost");
    writer_open(w, '{');
    writer_key_int(w, "flops_causal", (int64_t)cost->causal);
    writer_key_int(w, "flops_full", (int64_t)cost->full);
    writer_key_int(w, "kv_rows", (int64_t)(cost->kv_rows + 0.5));
    writer_key_int(w, "dense_flops_causal", (int64_t)cost->dense_causal);
    writer_key_int(w, "dense_flops_full", (int64_t)cost->dense_full);
    writer_key_int(w, "dense_kv_rows", (int64_t)(cost->dense_kv_rows + 0.5));
    writer_close(w, '}');
}

/* "usage": {...} over the n sequences of a ticket. */
static int write_usage(struct call *c, struct writer *w, const struct engine_ticket *t, int n, struct score_counts counts, struct err *err)
{
    struct api_usage u;
    int r = api_usage_sum(c, t, n, &u, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&c->server->metrics.prompt_tokens, (uint64_t)counts.prompt);
    writer_key(w, "usage");
    writer_open(w, '{');
    writer_key_int(w, "prompt_tokens", counts.prompt);
    writer_key_int(w, "scored_tokens", counts.scored);
    writer_key_int(w, "computed_tokens", u.computed);
    writer_key_int(w, "cached_tokens", u.cached);
    writer_key(w, "rows_routed");
    writer_open(w, '[');
    for (int l = 0; l < c->server->info->config->n_layers; l++)
        writer_int(w, u.routed[l]);
    writer_close(w, ']');
    if (api_has_nested(c)) {
        writer_key(w, "rows_executed");
        writer_open(w, '[');
        for (int l = 0; l < c->server->info->config->n_layers; l++)
            writer_int(w, u.executed[l]);
        writer_close(w, ']');
    }
    write_cost(w, &u.cost);
    writer_close(w, '}');
    return 0;
}

void score_open_answer(struct call *c, struct writer *w, const char *object)
{
    *w = writer_on(&c->resp->body);
    writer_open(w, '{');
    writer_key_text(w, "object", object);
    writer_key_text(w, "model", c->server->model_name);
}

int score_close_answer(struct call *c, struct writer *w, const struct engine_ticket *t, int n, struct score_counts counts, struct err *err)
{
    int r = write_usage(c, w, t, n, counts, err);
    writer_close(w, '}');
    return r < 0 ? r : w->code < 0 ? err_set(err, w->code, "the answer is too large") : 0;
}

/* A string a layer: 1 where the position attends, 0 where it does not, - where it skips a nested layer. */
static void write_routing(struct score_job *j, struct writer *w, const struct eval_result *r)
{
    char *bits = arena_alloc(&j->call->arena, (size_t)r->n_routing + 1, 1);
    if (!bits) {
        w->code = ERR_NOMEM;
        return;
    }
    writer_key(w, "routing");
    writer_open(w, '[');
    const struct engine_info *info = j->call->server->info;
    for (int l = 0; l < info->config->n_layers; l++) {
        const char code[] = {
            [DECISION_SKIP] = layer_is_nested(&info->plan[l]) ? '-' : '0', [DECISION_LINEAR] = '0', [DECISION_ATTEND] = '1'};
        for (int i = 0; i < r->n_routing; i++)
            bits[i] = code[r->routing[(size_t)l * (size_t)r->n_routing + (size_t)i]];
        writer_string(w, bits, (size_t)r->n_routing);
    }
    writer_close(w, ']');
}

static void write_pair(struct score_job *j, struct writer *w, const struct score_pair *p, const struct eval_result *r)
{
    double sum = 0;
    bool greedy = true;
    for (int i = 0; i < r->n_scored; i++) {
        sum += r->logprobs[i];
        greedy &= r->logprobs[i] == r->top_logprobs[i];
    }
    writer_open(w, '{');
    writer_key(w, "logprob");
    writer_double(w, sum);
    writer_key(w, "is_greedy");
    writer_bool(w, greedy);
    writer_key_int(w, "num_tokens", r->n_scored);
    writer_key_int(w, "truncated", p->truncated);
    if (j->tokens) {
        writer_key(w, "tokens");
        writer_open(w, '[');
        for (int i = 0; i < p->n_continuation; i++)
            writer_int(w, p->tokens[p->n - p->n_continuation + i]);
        writer_close(w, ']');
        writer_key(w, "token_logprobs");
        writer_open(w, '[');
        for (int i = 0; i < r->n_scored; i++)
            writer_float(w, r->logprobs[i]);
        writer_close(w, ']');
    }
    if (j->routing)
        write_routing(j, w, r);
    writer_close(w, '}');
}

int score_write(struct score_job *j, struct err *err)
{
    struct writer w;
    struct score_counts counts = {0};
    int k = 0;
    score_open_answer(j->call, &w, "loglikelihood");
    writer_key(&w, "results");
    writer_open(&w, '[');
    for (size_t i = 0; i < j->n_requests; i++) {
        writer_open(&w, '{');
        writer_key(&w, "continuations");
        writer_open(&w, '[');
        for (int n = 0; n < j->n_continuations[i]; n++, k++) {
            write_pair(j, &w, &j->pairs[k], engine_result(j->ticket, k));
            counts.prompt += j->pairs[k].n;
            counts.scored += j->pairs[k].n_continuation;
        }
        writer_close(&w, ']');
        writer_close(&w, '}');
    }
    writer_close(&w, ']');
    return score_close_answer(j->call, &w, j->ticket, j->n_pairs, counts, err);
}
