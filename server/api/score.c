/* POST /v1/loglikelihood. The semantics are those of lm-evaluation-harness's hf backend (lm_eval/api/model.py, TemplateLM.loglikelihood;
 * lm_eval/models/huggingface.py, _loglikelihood_tokens): the split of context and continuation, the prefix token of an empty context,
 * and the input (context + continuation)[-(max_length + 1):][:-1]. */
#include "server/api/score.h"
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

/* A pair as the request has it, and what its continuation is called there. */
struct source {
    const json_t *context, *continuation;
    const int32_t *context_ids; /* [n_context_ids], of a context made of ids, or of the text's last pair */
    size_t n_context_ids;
    char name[64];
};

struct ids {
    const int32_t *ids;
    size_t n;
};

/* What goes in front of the context: BOS if asked for, the prefix token if there is no context. A continuation that begins with the
 * prefix token brings its own context. */
static int choose_front(struct score_job *j, struct ids *context, struct ids *cont, const char *name, int32_t *ret_front, struct err *err)
{
    int32_t bos = j->call->server->bos;
    *ret_front = -1;
    if (context->n > 0) {
        if (j->add_bos && context->ids[0] != bos)
            *ret_front = bos;
        return 0;
    }
    int r = api_prefix_id(j->call, name, ret_front, err);
    if (r < 0 || cont->ids[0] != *ret_front)
        return r;
    *ret_front = -1;
    *context = (struct ids){cont->ids, 1};
    *cont = (struct ids){cont->ids + 1, cont->n - 1};
    if (cont->n == 0)
        return err_field(err, ERR_INVALID, name, "%s: the continuation is the prefix token alone; nothing is left to score", name);
    return 0;
}

/* The last max_length + 1 tokens of front, context and continuation. Borrows both. */
static int finish_pair(struct score_job *j, struct ids context, struct ids cont, const char *name, struct score_pair *p, struct err *err)
{
    size_t limit = (size_t)j->max_length;
    int32_t front;
    if (cont.n == 0)
        return err_field(err, ERR_INVALID, name,
                         "%s: the continuation has no tokens of its own; its text merges into the context's last token", name);
    int r = choose_front(j, &context, &cont, name, &front, err);
    if (r < 0)
        return r;
    size_t all = (front >= 0) + context.n + cont.n, over = all > limit + 1 ? all - limit - 1 : 0, n = all - over;
    if (cont.n > limit)
        return err_field(err, ERR_INVALID, name, "%s: the continuation has %zu tokens; max_length is %zu", name, cont.n, limit);
    if (over && !j->truncate)
        return err_field(err, ERR_INVALID, name,
                         "%s: context and continuation have %zu tokens; max_length %zu allows %zu (truncate is false)", name, all, limit,
                         limit + 1);
    size_t from_context = n - cont.n < context.n ? n - cont.n : context.n;
    *p = (struct score_pair){.context = context.ids + context.n - from_context,
                             .continuation = cont.ids,
                             .n_context = (int)from_context,
                             .n_continuation = (int)cont.n,
                             .truncated = (int)over,
                             .front = n - cont.n > context.n ? front : -1};
    return 0;
}

static int copy_ids(struct score_job *j, struct ids *ids, const char *name, struct err *err)
{
    int32_t *copy = arena_alloc(&j->call->arena, ids->n + 1, sizeof(*copy));
    if (!copy)
        return err_field(err, ERR_NOMEM, name, "%s: no memory for %zu tokens", name, ids->n);
    if (ids->n)
        memcpy(copy, ids->ids, ids->n * sizeof(*copy));
    ids->ids = copy;
    return 0;
}

/* The context's ids of a text: those of the pair before, if they are the same. */
static int share_context(struct score_job *j, struct source *q, struct ids *context, struct err *err)
{
    if (q->context_ids && q->n_context_ids == context->n && !memcmp(q->context_ids, context->ids, context->n * sizeof(*context->ids))) {
        context->ids = q->context_ids;
        return 0;
    }
    int r = copy_ids(j, context, q->name, err);
    q->context_ids = context->ids;
    q->n_context_ids = context->n;
    return r;
}

static int encode_pair(struct score_job *j, const struct source *q, struct token_ids *whole, size_t *ret_n_context, struct err *err)
{
    struct err why = {0};
    size_t n = json_string_length(q->context), m = json_string_length(q->continuation);
    int r = api_charge_text(j->call, n + m, err);
    if (r < 0)
        return r;
    r = tokenizer_encode_pair(j->call->server->tokenizer, json_string_value(q->context), n, json_string_value(q->continuation), m,
                              API_MAX_TEXT_TOKENS, whole, ret_n_context, &why);
    api_give_text(j->call, n + m);
    return r < 0 ? err_field(err, r, q->name, "%s: %s", q->name, why.text) : api_check_ids(j->call, whole, q->name, err);
}

static int pair_of_texts(struct score_job *j, struct source *q, struct score_pair *p, struct err *err)
{
    struct token_ids whole = {0};
    size_t n_context = 0;
    int r = api_need_tokenizer(j->call, q->name, err);
    if (r < 0)
        return r;
    if (json_string_length(q->continuation) == 0)
        return err_field(err, ERR_INVALID, q->name, "%s: the continuation is empty", q->name);
    r = encode_pair(j, q, &whole, &n_context, err);
    n_context = n_context < whole.n ? n_context : whole.n;
    struct ids context = {whole.ids, n_context}, cont = {whole.ids + n_context, whole.n - n_context};
    if (r >= 0)
        r = share_context(j, q, &context, err);
    if (r >= 0)
        r = copy_ids(j, &cont, q->name, err);
    if (r >= 0)
        r = finish_pair(j, context, cont, q->name, p, err);
    token_ids_done(&whole);
    return r;
}

static int parse_pair(struct score_job *j, struct source *q, struct score_pair *p, struct err *err)
{
    int32_t *ids;
    size_t n;
    if (json_is_string(q->context) && json_is_string(q->continuation))
        return pair_of_texts(j, q, p, err);
    if (!json_is_array(q->context) || !json_is_array(q->continuation))
        return err_field(err, ERR_INVALID, q->name, "%s: context and continuation must both be strings or both lists of token ids",
                         q->name);
    int r = api_ids(j->call, q->continuation, q->name, 0, &ids, &n, err);
    return r < 0 ? r : finish_pair(j, (struct ids){q->context_ids, q->n_context_ids}, (struct ids){ids, n}, q->name, p, err);
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
            return err_field(err, ERR_INVALID, "context", "requests[%zu].context is missing; an empty string or list takes BOS, else EOS",
                             i);
        if (!json_is_array(list))
            return err_field(err, ERR_INVALID, "continuations", "requests[%zu].continuations must be a list of 1 to %d, but is %s", i,
                             SCORE_MAX_CONTINUATIONS, json_type_name(list));
        if (n < 1 || n > SCORE_MAX_CONTINUATIONS)
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

static int parse_request(struct score_job *j, size_t i, const json_t *q, int first, struct err *err)
{
    struct source s = {.context = json_object_get(q, "context")};
    char context_name[48];
    int32_t *ids = NULL;
    int r = 0;
    snprintf(context_name, sizeof(context_name), "requests[%zu].context", i);
    if (json_is_array(s.context))
        r = api_ids(j->call, s.context, context_name, 0, &ids, &s.n_context_ids, err);
    s.context_ids = ids;
    for (int n = 0; n < j->n_continuations[i] && r >= 0; n++) {
        struct score_pair *p = &j->pairs[first + n];
        s.continuation = json_array_get(json_object_get(q, "continuations"), (size_t)n);
        snprintf(s.name, sizeof(s.name), "requests[%zu].continuations[%d]", i, n);
        r = parse_pair(j, &s, p, err);
    }
    return r;
}

static int parse_pairs(struct score_job *j, const json_t *requests, struct err *err)
{
    int first = 0, r = 0;
    for (size_t i = 0; i < j->n_requests && r >= 0; i++) {
        r = parse_request(j, i, json_array_get(requests, i), first, err);
        first += j->n_continuations[i];
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
    if (!json_is_array(requests))
        return err_field(err, ERR_INVALID, "requests", "requests must be a list of 1 to %d objects, but is %s", API_MAX_SEQUENCES,
                         json_type_name(requests));
    if (j->n_requests < 1 || j->n_requests > API_MAX_SEQUENCES)
        return err_field(err, ERR_INVALID, "requests", "requests must be a list of 1 to %d objects, but has %zu", API_MAX_SEQUENCES,
                         j->n_requests);
    j->n_continuations = arena_alloc(&c->arena, j->n_requests, sizeof(*j->n_continuations));
    r = j->n_continuations ? count_pairs(j, requests, err) : ERR_NOMEM;
    if (r >= 0) {
        j->pairs = arena_alloc(&c->arena, (size_t)j->n_pairs, sizeof(*j->pairs));
        r = j->pairs ? parse_pairs(j, requests, err) : ERR_NOMEM;
    }
    if (r == ERR_NOMEM)
        return err_field(err, r, "requests", "no memory for %zu requests", j->n_requests);
    if (r < 0)
        return r;
    api_note_unknown(c, c->body, known);
    return score_waves_send(j, err);
}

int score_finish(struct score_job *j, struct err *err)
{
    int r = 0;
    while (r >= 0 && j->n_waves) {
        r = score_waves_take(j, err);
        if (r >= 0)
            r = score_waves_send(j, err);
    }
    if (r < 0)
        score_cancel(j);
    return r;
}
