/* POST /v1/loglikelihood. The semantics are those of lm-evaluation-harness's hf backend (lm_eval/api/model.py, TemplateLM.loglikelihood;
 * lm_eval/models/huggingface.py, _loglikelihood_tokens): the split of context and continuation, the prefix token of an empty context,
 * and the input (context + continuation)[-(max_length + 1):][:-1]. */
#include "server/score.h"
#include <string.h>

int score_max_length(struct call *c, int *ret, struct err *err)
{
    int64_t v = c->server->info->max_model_len;
    int r = json_get_int(c->body, "", "max_length", 1, v, &v, err);
    *ret = (int)v;
    return r;
}

/* truncate: true, false or "left" */
static int parse_truncate(struct call *c, bool *ret, struct err *err)
{
    const json_t *v = json_object_get(c->body, "truncate");
    if (json_is_string(v) && !strcmp(json_string_value(v), "left"))
        return 0;
    if (json_is_string(v))
        return err_field(err, ERR_INVALID, "truncate", "truncate must be true, false or \"left\", but is \"%.40s\"", json_string_value(v));
    return json_get_bool(c->body, "", "truncate", ret, err);
}

static int parse_options(struct call *c, struct score_job *j, struct err *err)
{
    int r = api_check_model(c, err);
    *j = (struct score_job){.call = c, .truncate = true};
    if (r < 0 || (r = score_max_length(c, &j->max_length, err)) < 0 || (r = json_get_bool(c->body, "", "add_bos", &j->add_bos, err)) < 0 ||
        (r = parse_truncate(c, &j->truncate, err)) < 0 || (r = json_get_bool(c->body, "", "routing", &j->routing, err)) < 0)
        return r;
    if (j->add_bos && c->server->bos < 0)
        return err_field(err, ERR_INVALID, "add_bos", "add_bos: this model has no BOS");
    return json_get_bool(c->body, "", "tokens", &j->tokens, err);
}

/* ---- one pair ---- */

/* tokens[1..] hold n ids of which the first n_context are the context; tokens[0] is free for a token in front. */
static int finish_pair(struct score_job *j, int32_t *tokens, size_t n, size_t n_context, const char *name, struct score_pair *p, struct err *err)
{
    size_t limit = (size_t)j->max_length;
    int32_t prefix;
    if (n <= n_context)
        return err_field(err, ERR_INVALID, name, "%s: the continuation has no tokens of its own; its text merges into the context's last token", name);
    bool front = j->add_bos && tokens[1] != j->call->server->bos;
    if (n_context == 0) {
        int r = api_prefix_id(j->call, name, &prefix, err);
        if (r < 0)
            return r;
        front = tokens[1] != prefix;
        n_context = !front;      /* a continuation that begins with the prefix token brings its own */
        tokens[0] = prefix;
    } else {
        tokens[0] = j->call->server->bos;
    }
    tokens += !front;
    n += front;
    n_context += front;
    size_t n_cont = n - n_context, over = n > limit + 1 ? n - limit - 1 : 0;
    if (n_cont == 0)
        return err_field(err, ERR_INVALID, name, "%s: the continuation is the prefix token alone; nothing is left to score", name);
    if (n_cont > limit)
        return err_field(err, ERR_INVALID, name, "%s: the continuation has %zu tokens; max_length is %zu", name, n_cont, limit);
    if (over && !j->truncate)
        return err_field(err, ERR_INVALID, name, "%s: context and continuation have %zu tokens; max_length %zu allows %zu (truncate is false)", name, n,
                         limit, limit + 1);
    *p = (struct score_pair){.tokens = tokens + over, .n = (int)(n - over), .n_continuation = (int)n_cont, .truncated = (int)over};
    return 0;
}

static int pair_of_texts(struct score_job *j, const json_t *context, const json_t *continuation, const char *name, struct score_pair *p,
                         struct err *err)
{
    struct token_ids whole = {0};
    struct err why = {0};
    size_t n_context = 0;
    int32_t *tokens = NULL;
    int r = api_need_tokenizer(j->call, name, err);
    if (r < 0)
        return r;
    r = tokenizer_encode_pair(j->call->server->tokenizer, json_string_value(context), json_string_length(context), json_string_value(continuation),
                              json_string_length(continuation), API_MAX_TEXT_TOKENS, &whole, &n_context, &why);
    if (r < 0)
        err_field(err, r, name, "%s: %s", name, why.text);
    else if (json_string_length(continuation) == 0)
        r = err_field(err, ERR_INVALID, name, "%s: the continuation is empty", name);
    else
        r = api_keep_ids(j->call, &whole, name, 1, &tokens, err);
    if (r >= 0)
        r = finish_pair(j, tokens, whole.n, n_context, name, p, err);
    token_ids_done(&whole);
    return r;
}

static int pair_of_ids(struct score_job *j, const json_t *context, const json_t *continuation, const char *name, struct score_pair *p,
                       struct err *err)
{
    size_t n_context, n_cont;
    int32_t *tokens, *cont;
    int r = api_ids(j->call, continuation, name, 0, &cont, &n_cont, err);
    if (r < 0)
        return r;
    /* the free place in front, the context, and room behind it */
    r = api_ids(j->call, context, "context", 1 + n_cont, &tokens, &n_context, err);
    if (r < 0)
        return r;
    memmove(tokens + 1, tokens + 1 + n_cont, n_context * sizeof(*tokens));
    memcpy(tokens + 1 + n_context, cont, n_cont * sizeof(*tokens));
    return finish_pair(j, tokens, n_context + n_cont, n_context, name, p, err);
}

static int parse_pair(struct score_job *j, const json_t *context, const json_t *continuation, const char *name, struct score_pair *p,
                      struct err *err)
{
    if (json_is_string(context) && json_is_string(continuation))
        return pair_of_texts(j, context, continuation, name, p, err);
    if (json_is_array(context) && json_is_array(continuation))
        return pair_of_ids(j, context, continuation, name, p, err);
    return err_field(err, ERR_INVALID, name, "%s: context and continuation must both be strings or both lists of token ids", name);
}

/* ---- all pairs ---- */

static int count_pairs(struct score_job *j, const json_t *requests, struct err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < j->n_requests; i++) {
        const json_t *q = json_array_get(requests, i), *list = json_object_get(q, "continuations");
        size_t n = json_array_size(list);
        if (!json_is_object(q))
            return err_field(err, ERR_INVALID, "requests", "requests[%zu] must be an object with context and continuations", i);
        if (!json_object_get(q, "context"))
            return err_field(err, ERR_INVALID, "context", "requests[%zu].context is missing; an empty string or list takes BOS, else EOS", i);
        if (!json_is_array(list) || n < 1 || n > SCORE_MAX_CONTINUATIONS)
            return err_field(err, ERR_INVALID, "continuations", "requests[%zu].continuations must be a list of 1 to %d, but has %zu", i,
                             SCORE_MAX_CONTINUATIONS, n);
        j->n_continuations[i] = (int)n;
        total += n;
    }
    if (total > API_MAX_SEQUENCES)
        return err_field(err, ERR_INVALID, "requests", "requests have %zu continuations; the limit is %d", total, API_MAX_SEQUENCES);
    j->n_pairs = (int)total;
    return 0;
}

static int parse_pairs(struct score_job *j, const json_t *requests, struct err *err)
{
    int k = 0, r = 0;
    for (size_t i = 0; i < j->n_requests; i++) {
        const json_t *q = json_array_get(requests, i);
        for (int n = 0; n < j->n_continuations[i] && r >= 0; n++, k++) {
            char name[64];
            struct score_pair *p = &j->pairs[k];
            snprintf(name, sizeof(name), "requests[%zu].continuations[%d]", i, n);
            r = parse_pair(j, json_object_get(q, "context"), json_array_get(json_object_get(q, "continuations"), (size_t)n), name, p, err);
            j->reqs[k] = (struct eval_request){.tokens = p->tokens, .n_tokens = p->n, .score_begin = p->n - p->n_continuation, .top_p = 1,
                                               .want_routing = j->routing};
        }
    }
    return r;
}

int score_start(struct call *c, struct score_job *j, struct err *err)
{
    static const char *const known[] = {"model", "requests", "add_bos", "max_length", "truncate", "routing", "tokens", NULL};
    int r = parse_options(c, j, err);
    if (r < 0)
        return r;
    const json_t *requests = json_object_get(c->body, "requests");
    j->n_requests = json_array_size(requests);
    if (!json_is_array(requests) || j->n_requests < 1 || j->n_requests > API_MAX_SEQUENCES)
        return err_field(err, ERR_INVALID, "requests", "requests must be a list of 1 to %d objects, but has %zu", API_MAX_SEQUENCES, j->n_requests);
    j->n_continuations = arena_alloc(&c->arena, j->n_requests, sizeof(*j->n_continuations));
    r = j->n_continuations ? count_pairs(j, requests, err) : ERR_NOMEM;
    if (r >= 0) {
        j->pairs = arena_alloc(&c->arena, (size_t)j->n_pairs, sizeof(*j->pairs));
        j->reqs = arena_alloc(&c->arena, (size_t)j->n_pairs, sizeof(*j->reqs));
        r = j->pairs && j->reqs ? parse_pairs(j, requests, err) : ERR_NOMEM;
    }
    if (r == ERR_NOMEM)
        return err_field(err, r, "requests", "no memory for %zu requests", j->n_requests);
    if (r < 0)
        return r;
    api_note_unknown(c, c->body, known);
    return engine_submit(c->server->engine, j->reqs, j->n_pairs, &j->ticket, err);
}

void score_cancel(struct score_job *j)
{
    engine_ticket_free(j->ticket);
    j->ticket = NULL;
}

/* ---- the answer ---- */

int score_write_usage(struct call *c, struct writer *w, const struct engine_ticket *t, int n, int64_t tokens, int64_t scored, struct err *err)
{
    struct api_usage u;
    int r = api_usage_sum(c, t, n, &u, err);
    if (r < 0)
        return r;
    atomic_fetch_add(&c->server->metrics.prompt_tokens, (uint64_t)tokens);
    writer_key(w, "usage");
    writer_open(w, '{');
    writer_key_int(w, "prompt_tokens", tokens);
    writer_key_int(w, "scored_tokens", scored);
    writer_key_int(w, "computed_tokens", u.computed);
    writer_key_int(w, "cached_tokens", u.cached);
    writer_key(w, "rows_routed");
    writer_open(w, '[');
    for (int l = 0; l < c->server->info->config->n_layers; l++)
        writer_int(w, u.routed[l]);
    writer_close(w, ']');
    writer_close(w, '}');
    return 0;
}

/* One string of 0 and 1 a layer: 1 where the position attends. */
static void write_routing(struct score_job *j, struct writer *w, const struct eval_result *r)
{
    char *bits = arena_alloc(&j->call->arena, (size_t)r->n_routing + 1, 1);
    if (!bits) {
        w->code = ERR_NOMEM;
        return;
    }
    writer_key(w, "routing");
    writer_open(w, '[');
    for (int l = 0; l < j->call->server->info->config->n_layers; l++) {
        for (int i = 0; i < r->n_routing; i++)
            bits[i] = r->routing[(size_t)l * (size_t)r->n_routing + (size_t)i] ? '1' : '0';
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

static int write_answer(struct score_job *j, struct err *err)
{
    struct writer w = writer_on(&j->call->resp->body);
    int64_t tokens = 0, scored = 0;
    int k = 0;
    writer_open(&w, '{');
    writer_key_text(&w, "object", "loglikelihood");
    writer_key_text(&w, "model", j->call->server->model_name);
    writer_key(&w, "results");
    writer_open(&w, '[');
    for (size_t i = 0; i < j->n_requests; i++) {
        writer_open(&w, '{');
        writer_key(&w, "continuations");
        writer_open(&w, '[');
        for (int n = 0; n < j->n_continuations[i]; n++, k++) {
            write_pair(j, &w, &j->pairs[k], engine_result(j->ticket, k));
            tokens += j->pairs[k].n;
            scored += j->pairs[k].n_continuation;
        }
        writer_close(&w, ']');
        writer_close(&w, '}');
    }
    writer_close(&w, ']');
    int r = score_write_usage(j->call, &w, j->ticket, j->n_pairs, tokens, scored, err);
    writer_close(&w, '}');
    return r < 0 ? r : w.code < 0 ? err_set(err, w.code, "the answer is too large") : 0;
}

int score_finish(struct score_job *j, struct err *err)
{
    int r = api_wait(j->call, j->ticket, j->n_pairs, "continuation", err);
    if (r >= 0)
        r = write_answer(j, err);
    score_cancel(j);
    return r;
}
