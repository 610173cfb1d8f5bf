/* POST /v1/routing: one text, its decisions and what routers compared, from the pass that scores it. */
#include "server/api/routing.h"

/* ---- the request ---- */

static int parse_options(struct routing_job *j, struct err *err)
{
    struct call *c = j->call;
    int vocab = c->server->info->config->vocab, most = vocab < ENGINE_TOP_K_MAX ? vocab : ENGINE_TOP_K_MAX;
    int64_t top = most < ROUTING_TOP ? most : ROUTING_TOP;
    int r = api_check_model(c, err);
    j->probabilities = true;
    if (r < 0 || (r = json_get_bool(c->body, "", "add_bos", &j->add_bos, err)) < 0 ||
        (r = json_get_bool(c->body, "", "probabilities", &j->probabilities, err)) < 0 ||
        (r = json_get_int(c->body, "", "top_logprobs", 0, most, &top, err)) < 0)
        return r;
    j->top_logprobs = (int)top;
    if (j->add_bos && c->server->bos < 0)
        return err_field(err, ERR_INVALID, "add_bos", "add_bos: this model has no BOS");
    return 0;
}

/* One place is left before the tokens. */
static int parse_tokens(struct routing_job *j, struct err *err)
{
    const json_t *v = json_object_get(j->call->body, "text");
    if (json_is_string(v))
        return api_encode(j->call, json_string_value(v), json_string_length(v), "text", 1, &j->tokens, &j->n, err);
    if (json_is_array(v))
        return api_ids(j->call, v, "text", 1, &j->tokens, &j->n, err);
    return err_field(err, ERR_INVALID, "text", v ? "text must be a string or a list of token ids" : "text is missing");
}

/* BOS where it is asked for; an empty text stands for BOS, else EOS. */
static int add_front(struct routing_job *j, struct err *err)
{
    int32_t bos = j->call->server->bos;
    bool add = j->n ? j->add_bos && j->tokens[1] != bos : true;
    int r = j->n ? 0 : api_prefix_id(j->call, "text", &bos, err);
    if (r < 0)
        return r;
    if (add)
        j->tokens[0] = bos;
    else
        j->tokens++;
    j->n += add;
    int most = j->call->server->info->max_model_len;
    if (j->n > (size_t)most)
        return err_field(err, ERR_INVALID, "text", "text has %zu tokens; max_model_len is %d", j->n, most);
    return 0;
}

static int run(struct routing_job *j, struct err *err)
{
    j->req = (struct eval_request){.tokens = j->tokens,
                                   .n_tokens = (int)j->n,
                                   .score_begin = 1,
                                   .top_k = j->top_logprobs,
                                   .max_new = 1,
                                   .top_p = 1,
                                   .ignore_eos = true,
                                   .want_routing = true,
                                   .want_probs = j->probabilities};
    return api_run(j->call, &j->req, 1, "text", &j->ticket, err);
}

/* ---- the answer ---- */

struct answer {
    struct call call; /* owned: arena and body */
    struct routing_job job;
    struct routing_cursor cursor;
    struct writer w;
};

static bool write_some(void *user)
{
    struct answer *a = user;
    return routing_write_some(&a->job, &a->w, &a->cursor);
}

static int answer_next(void *user, struct buf *out)
{
    return api_write_piece(&((struct answer *)user)->w, out, write_some, user);
}

static void answer_done(void *user)
{
    struct answer *a = user;
    api_free(&a->call, a->job.ticket, &a->job.req, 1);
    api_drop_call(&a->call);
}

int api_routing(struct call *c, struct err *err)
{
    static const char *const known[] = {"model", "text", "add_bos", "probabilities", "top_logprobs", NULL};
    struct answer *a = arena_alloc(&c->arena, 1, sizeof(*a));
    if (!a)
        return err_set(err, ERR_NOMEM, "no memory for the request");
    struct routing_job *j = &a->job;
    j->call = c;
    int r = parse_options(j, err);
    if (r < 0 || (r = parse_tokens(j, err)) < 0 || (r = add_front(j, err)) < 0)
        return r;
    api_note_unknown(c, c->body, known);
    r = run(j, err);
    if (r >= 0)
        r = api_usage_add(c, j->ticket, 1, &j->usage, err);
    if (r < 0) {
        api_free(c, j->ticket, &j->req, 1);
        return r;
    }
    api_take_call(c, &a->call);
    j->call = &a->call;
    c->resp->stream = (struct http_stream){answer_next, answer_done, a};
    return 0;
}
