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

static void write_usage(struct call *c, struct writer *w, const struct api_usage *u, struct score_counts counts)
{
    atomic_fetch_add(&c->server->metrics.prompt_tokens, (uint64_t)counts.prompt);
    api_count(c, counts.prompt, u->computed);
    writer_key(w, "usage");
    writer_open(w, '{');
    writer_key_int(w, "prompt_tokens", counts.prompt);
    writer_key_int(w, "scored_tokens", counts.scored);
    writer_key_int(w, "computed_tokens", u->computed);
    writer_key_int(w, "cached_tokens", u->cached);
    writer_key(w, "rows_routed");
    writer_open(w, '[');
    for (int l = 0; l < c->server->info->config->n_layers; l++)
        writer_int(w, u->routed ? u->routed[l] : 0);
    writer_close(w, ']');
    if (api_has_nested(c)) {
        writer_key(w, "rows_executed");
        writer_open(w, '[');
        for (int l = 0; l < c->server->info->config->n_layers; l++)
            writer_int(w, u->executed ? u->executed[l] : 0);
        writer_close(w, ']');
    }
    write_cost(w, &u->cost);
    writer_close(w, '}');
}

void score_open_answer(struct call *c, struct writer *w, const char *object)
{
    writer_open(w, '{');
    writer_key_text(w, "object", object);
    writer_key_text(w, "model", c->server->model_name);
}

void score_close_answer(struct call *c, struct writer *w, const struct api_usage *usage, struct score_counts counts)
{
    write_usage(c, w, usage, counts);
    writer_close(w, '}');
}

/* ---- pairs ---- */

/* A string a layer: 1 where the position attends, 0 where it does not, - where it skips a nested layer. */
static void write_routing(struct score_job *j, struct writer *w, const struct score_pair *p)
{
    size_t row = ((size_t)p->n_routing + 3) / 4;
    struct buf bits;
    buf_init(&bits, (size_t)p->n_routing);
    writer_key(w, "routing");
    writer_open(w, '[');
    const struct engine_info *info = j->call->server->info;
    for (int l = 0; l < info->config->n_layers && w->code >= 0; l++) {
        const char *code = layer_is_nested(&info->plan[l]) ? "-01" : "001"; /* by enum decision */
        buf_clear(&bits);
        for (int i = 0; i < p->n_routing && w->code >= 0; i++)
            w->code = buf_append(&bits, &code[p->routing[(size_t)l * row + (size_t)i / 4] >> (2 * (i % 4)) & 3], 1);
        writer_string(w, bits.data, bits.len);
    }
    writer_close(w, ']');
    buf_done(&bits);
}

static void write_tokens(struct writer *w, const struct score_pair *p)
{
    writer_key(w, "tokens");
    writer_open(w, '[');
    for (int i = 0; i < p->n_continuation; i++)
        writer_int(w, p->continuation[i]);
    writer_close(w, ']');
    writer_key(w, "token_logprobs");
    writer_open(w, '[');
    for (int i = 0; i < p->n_continuation; i++)
        writer_float(w, p->logprobs[i]);
    writer_close(w, ']');
}

static void write_pair(struct score_job *j, struct writer *w, const struct score_pair *p)
{
    writer_open(w, '{');
    writer_key(w, "logprob");
    writer_double(w, p->logprob);
    writer_key(w, "is_greedy");
    writer_bool(w, p->greedy);
    writer_key_int(w, "num_tokens", p->n_continuation);
    writer_key_int(w, "truncated", p->truncated);
    if (j->tokens)
        write_tokens(w, p);
    if (j->routing)
        write_routing(j, w, p);
    writer_close(w, '}');
}

static void end_answer(struct score_job *j, struct writer *w)
{
    struct score_counts counts = {0};
    for (int i = 0; i < j->n_pairs; i++) {
        const struct score_pair *p = &j->pairs[i];
        counts.prompt += (p->front >= 0) + p->n_context + p->n_continuation;
        counts.scored += p->n_continuation;
    }
    writer_close(w, ']');
    score_close_answer(j->call, w, &j->usage, counts);
}

bool score_write_some(struct score_job *j, struct writer *w, struct score_cursor *c)
{
    if (!c->begun) {
        score_open_answer(j->call, w, "loglikelihood");
        writer_key(w, "results");
        writer_open(w, '[');
        c->begun = true;
    }
    if (c->request == j->n_requests) {
        end_answer(j, w);
        return true;
    }
    if (c->continuation == 0) {
        writer_open(w, '{');
        writer_key(w, "continuations");
        writer_open(w, '[');
    }
    write_pair(j, w, &j->pairs[c->pair++]);
    if (++c->continuation == j->n_continuations[c->request]) {
        writer_close(w, ']');
        writer_close(w, '}');
        c->continuation = 0;
        c->request++;
    }
    return false;
}
