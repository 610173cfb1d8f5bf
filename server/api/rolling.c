/* Windows as lm-evaluation-harness makes them (lm_eval/utils.py, make_disjoint_window over get_rolling_token_windows): the first holds
 * the prefix token (BOS, else EOS) and max_length - 1 tokens as input and scores max_length; each later one scores the next `stride`
 * tokens with as much context as max_length input positions allow, the last one too. Prefix and document lie in one array, so a
 * window is a slice of it, and all windows of a request run in the engine at once. */
#include "server/api/rolling.h"
#include "server/api/score.h"
#include <string.h>

struct document {
    int32_t *tokens; /* [n + 1]: the prefix token, then the document */
    size_t n;
    int64_t n_bytes; /* -1: the document came as ids */
    int first_window, n_windows;
};

struct window {
    const struct document *doc;
    size_t begin, end; /* slice of doc->tokens */
    size_t scored;     /* its last tokens */
};

struct rolling {
    struct call *call;
    struct document *docs;
    size_t n_docs;
    struct window *windows;
    struct eval_request *reqs;
    int n_windows;
    int max_length, stride;
    bool add_bos, tokens, routing;
    int64_t *edges; /* [n_edges] ascending; bucket i is [edges[i], edges[i + 1]), the last has no end */
    size_t n_edges;
    struct engine_ticket *ticket;
    struct api_usage usage;
};

/* ---- the request ---- */

static int parse_edges(struct rolling *q, struct err *err)
{
    const json_t *list = json_object_get(q->call->body, "bucket_edges");
    q->n_edges = json_array_size(list);
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list) || q->n_edges > ROLLING_MAX_EDGES)
        return err_field(err, ERR_INVALID, "bucket_edges", "bucket_edges must be a list of at most %d positions", ROLLING_MAX_EDGES);
    q->edges = arena_alloc(&q->call->arena, q->n_edges + 1, sizeof(*q->edges));
    if (!q->edges)
        return err_field(err, ERR_NOMEM, "bucket_edges", "no memory for %zu edges", q->n_edges);
    for (size_t i = 0; i < q->n_edges; i++) {
        const json_t *v = json_array_get(list, i);
        q->edges[i] = json_integer_value(v);
        if (!json_is_integer(v) || q->edges[i] < 0 || q->edges[i] > API_MAX_TEXT_TOKENS || (i && q->edges[i] <= q->edges[i - 1]))
            return err_field(err, ERR_INVALID, "bucket_edges", "bucket_edges[%zu] must be an integer from 0 to %d above the one before", i,
                             API_MAX_TEXT_TOKENS);
    }
    return 0;
}

static int parse_options(struct rolling *q, struct err *err)
{
    struct call *c = q->call;
    int64_t stride;
    int r = api_check_model(c, err);
    if (r < 0 || (r = score_max_length(c, &q->max_length, err)) < 0)
        return r;
    stride = q->max_length;
    q->add_bos = true;
    if ((r = json_get_int(c->body, "", "stride", 1, q->max_length, &stride, err)) < 0 ||
        (r = json_get_bool(c->body, "", "add_bos", &q->add_bos, err)) < 0 ||
        (r = json_get_bool(c->body, "", "tokens", &q->tokens, err)) < 0 ||
        (r = json_get_bool(c->body, "", "routing", &q->routing, err)) < 0 || (r = parse_edges(q, err)) < 0)
        return r;
    q->stride = (int)stride;
    if (q->routing && !q->edges)
        return err_field(err, ERR_INVALID, "routing", "routing is counted by bucket: it needs bucket_edges");
    return 0;
}

static int parse_document(struct rolling *q, const json_t *v, const char *name, struct document *d, struct err *err)
{
    int r;
    d->n_bytes = -1;
    if (json_is_string(v)) {
        d->n_bytes = (int64_t)json_string_length(v);
        r = api_encode(q->call, json_string_value(v), json_string_length(v), name, 1, &d->tokens, &d->n, err);
    } else if (json_is_array(v)) {
        r = api_ids(q->call, v, name, 1, &d->tokens, &d->n, err);
    } else {
        return err_field(err, ERR_INVALID, name, "%s must be a string or a list of token ids", name);
    }
    if (r < 0)
        return r;
    if (q->add_bos)
        return api_prefix_id(q->call, name, &d->tokens[0], err);
    if (d->n == 0)
        return err_field(err, ERR_INVALID, name, "%s: an empty text needs add_bos", name);
    d->tokens++; /* the document's own first token is context only */
    d->n--;
    return 0;
}

/* text: one document; texts: a list of them. */
static int parse_documents(struct rolling *q, struct err *err)
{
    const json_t *one = json_object_get(q->call->body, "text"), *many = json_object_get(q->call->body, "texts");
    int r = 0;
    if (!one == !many)
        return err_field(err, ERR_INVALID, "text", "give either text (one document) or texts (a list of documents)");
    if (many && (!json_is_array(many) || json_array_size(many) < 1 || json_array_size(many) > ROLLING_MAX_DOCUMENTS))
        return err_field(err, ERR_INVALID, "texts", "texts must be a list of 1 to %d documents", ROLLING_MAX_DOCUMENTS);
    q->n_docs = many ? json_array_size(many) : 1;
    q->docs = arena_alloc(&q->call->arena, q->n_docs, sizeof(*q->docs));
    if (!q->docs)
        return err_field(err, ERR_NOMEM, "texts", "no memory for %zu documents", q->n_docs);
    for (size_t i = 0; i < q->n_docs && r >= 0; i++) {
        char name[32] = "text";
        if (many)
            snprintf(name, sizeof(name), "texts[%zu]", i);
        r = parse_document(q, many ? json_array_get(many, i) : one, name, &q->docs[i], err);
    }
    return r;
}

/* ---- windows ---- */

/* d->tokens[1 .. d->n] are scored; token i has i tokens before it. */
static size_t count_windows(const struct rolling *q, const struct document *d)
{
    size_t rest = d->n > (size_t)q->max_length ? d->n - (size_t)q->max_length : 0;
    return (d->n > 0) + (rest + (size_t)q->stride - 1) / (size_t)q->stride;
}

static void cut_document(struct rolling *q, struct document *d)
{
    size_t max = (size_t)q->max_length, done = 0;
    d->first_window = q->n_windows;
    while (done < d->n) {
        size_t scored = done ? (size_t)q->stride : max, end;
        scored = scored < d->n - done ? scored : d->n - done;
        end = done + scored + 1;
        size_t begin = end > max + 1 ? end - max - 1 : 0;
        q->windows[q->n_windows++] = (struct window){d, begin, end, scored};
        done += scored;
    }
    d->n_windows = q->n_windows - d->first_window;
}

static int make_windows(struct rolling *q, struct err *err)
{
    size_t total = 0;
    for (size_t i = 0; i < q->n_docs; i++)
        total += count_windows(q, &q->docs[i]);
    if (total > API_MAX_SEQUENCES)
        return err_field(err, ERR_INVALID, "stride", "stride %d makes %zu windows of this text; the limit is %d", q->stride, total,
                         API_MAX_SEQUENCES);
    q->windows = arena_alloc(&q->call->arena, total + 1, sizeof(*q->windows));
    q->reqs = arena_alloc(&q->call->arena, total + 1, sizeof(*q->reqs));
    if (!q->windows || !q->reqs)
        return err_field(err, ERR_NOMEM, "text", "no memory for %zu windows", total);
    for (size_t i = 0; i < q->n_docs; i++)
        cut_document(q, &q->docs[i]);
    for (int i = 0; i < q->n_windows; i++) {
        const struct window *w = &q->windows[i];
        int n = (int)(w->end - w->begin);
        q->reqs[i] = (struct eval_request){
            .tokens = w->doc->tokens + w->begin, .n_tokens = n, .score_begin = n - (int)w->scored, .top_p = 1, .want_routing = q->routing};
    }
    return 0;
}

/* ---- the answer ---- */

struct buckets {
    double *sum; /* [n_edges] */
    int64_t *count;
    int64_t *routed;   /* [n_layers, n_edges]: of the rows that gave these scores, those that attended; NULL unless asked for */
    int64_t *executed; /* the same of those that did not skip the layer; NULL also where no layer is nested */
};

static int n_layers_of(const struct rolling *q)
{
    return q->call->server->info->config->n_layers;
}

static int64_t *alloc_by_layer(struct rolling *q)
{
    return arena_alloc(&q->call->arena, (q->n_edges + 1) * (size_t)n_layers_of(q), sizeof(int64_t));
}

static int buckets_init(struct rolling *q, struct buckets *b)
{
    bool executed = q->routing && api_has_nested(q->call);
    b->sum = arena_alloc(&q->call->arena, q->n_edges + 1, sizeof(double));
    b->count = arena_alloc(&q->call->arena, q->n_edges + 1, sizeof(int64_t));
    b->routed = q->routing ? alloc_by_layer(q) : NULL;
    b->executed = executed ? alloc_by_layer(q) : NULL;
    return b->sum && b->count && (b->routed || !q->routing) && (b->executed || !executed) ? 0 : ERR_NOMEM;
}

static void buckets_clear(const struct rolling *q, struct buckets *b)
{
    memset(b->sum, 0, q->n_edges * sizeof(*b->sum));
    memset(b->count, 0, q->n_edges * sizeof(*b->count));
    if (b->routed)
        memset(b->routed, 0, q->n_edges * (size_t)n_layers_of(q) * sizeof(*b->routed));
    if (b->executed)
        memset(b->executed, 0, q->n_edges * (size_t)n_layers_of(q) * sizeof(*b->executed));
}

/* Scored token k of a window, which has `position` tokens before it; its score comes from the row before its own. */
static void bucket_add(const struct rolling *q, struct buckets *b, size_t position, const struct eval_result *r, size_t k)
{
    size_t i = q->n_edges, row = (size_t)(r->n_routing - r->n_scored) + k;
    while (i > 0 && (int64_t)position < q->edges[i - 1])
        i--;
    if (i == 0)
        return;
    b->sum[i - 1] += r->logprobs[k];
    b->count[i - 1]++;
    for (int l = 0; b->routed && l < n_layers_of(q); l++) {
        enum decision did = r->routing[(size_t)l * (size_t)r->n_routing + row];
        b->routed[(size_t)l * q->n_edges + i - 1] += did == DECISION_ATTEND;
        if (b->executed)
            b->executed[(size_t)l * q->n_edges + i - 1] += did != DECISION_SKIP || !layer_is_nested(&q->call->server->info->plan[l]);
    }
}

static void write_counts(const struct rolling *q, struct writer *w, const int64_t *counts)
{
    writer_open(w, '[');
    for (size_t i = 0; i < q->n_edges; i++)
        writer_int(w, counts[i]);
    writer_close(w, ']');
}

static void write_by_layer(const struct rolling *q, struct writer *w, const char *key, const int64_t *counts)
{
    writer_key(w, key);
    writer_open(w, '[');
    for (int l = 0; l < n_layers_of(q); l++)
        write_counts(q, w, counts + (size_t)l * q->n_edges);
    writer_close(w, ']');
}

static void write_buckets(const struct rolling *q, struct writer *w, const char *key, const struct buckets *b)
{
    writer_key(w, key);
    writer_open(w, '{');
    writer_key(w, "logprob");
    writer_open(w, '[');
    for (size_t i = 0; i < q->n_edges; i++)
        writer_double(w, b->sum[i]);
    writer_close(w, ']');
    writer_key(w, "num_tokens");
    write_counts(q, w, b->count);
    if (b->routed)
        write_by_layer(q, w, "rows_routed", b->routed);
    if (b->executed)
        write_by_layer(q, w, "rows_executed", b->executed);
    writer_close(w, '}');
}

static void write_document_buckets(struct rolling *q, struct writer *w, const struct document *d, struct buckets by[2])
{
    buckets_clear(q, &by[0]);
    buckets_clear(q, &by[1]);
    for (int i = d->first_window; i < d->first_window + d->n_windows; i++) {
        const struct window *win = &q->windows[i];
        const struct eval_result *r = engine_result(q->ticket, i);
        for (size_t k = 0; k < win->scored; k++) {
            size_t at = win->end - win->scored + k; /* tokens before it, the prefix token included */
            bucket_add(q, &by[0], at - win->begin, r, k);
            bucket_add(q, &by[1], at, r, k);
        }
    }
    writer_key(w, "buckets");
    writer_open(w, '{');
    write_buckets(q, w, "by_context", &by[0]);
    write_buckets(q, w, "by_position", &by[1]);
    writer_close(w, '}');
}

static void begin_document(struct rolling *q, struct writer *w, const struct document *d)
{
    double sum = 0;
    for (int i = d->first_window; i < d->first_window + d->n_windows; i++) {
        const float *logprobs = engine_result(q->ticket, i)->logprobs;
        for (size_t k = 0; k < q->windows[i].scored; k++)
            sum += logprobs[k];
    }
    writer_open(w, '{');
    writer_key(w, "logprob");
    writer_double(w, sum);
    writer_key_int(w, "num_tokens", (int64_t)d->n);
    writer_key(w, "num_bytes");
    if (d->n_bytes >= 0)
        writer_int(w, d->n_bytes);
    else
        writer_null(w);
    writer_key_int(w, "num_windows", d->n_windows);
}

/* ---- the answer, in pieces ---- */

#define SLICE 1024 /* tokens that are written at once */

enum part { PART_BEGIN, PART_TOKENS, PART_LOGPROBS, PART_END };

struct answer {
    struct call call; /* owned: arena, body, and q */
    struct rolling *q;
    struct writer w;
    struct buckets by[2];
    bool begun;
    size_t doc;
    enum part part;
    size_t token; /* of the document, 1 .. n */
    int window;   /* whose logprobs are written next */
};

static void write_ids(struct answer *a, const struct document *d)
{
    if (a->token == 1) {
        writer_key(&a->w, "tokens");
        writer_open(&a->w, '[');
    }
    for (size_t to = a->token + SLICE; a->token <= d->n && a->token < to; a->token++)
        writer_int(&a->w, d->tokens[a->token]);
    if (a->token > d->n) {
        writer_close(&a->w, ']');
        a->part = PART_LOGPROBS;
        a->window = d->first_window;
    }
}

/* A window at a time. */
static void write_logprobs(struct answer *a, const struct document *d)
{
    if (a->window == d->first_window) {
        writer_key(&a->w, "token_logprobs");
        writer_open(&a->w, '[');
    }
    if (a->window < d->first_window + d->n_windows) {
        const float *lp = engine_result(a->q->ticket, a->window)->logprobs;
        for (size_t k = 0; k < a->q->windows[a->window].scored; k++)
            writer_float(&a->w, lp[k]);
        a->window++;
    }
    if (a->window >= d->first_window + d->n_windows) {
        writer_close(&a->w, ']');
        a->part = PART_END;
    }
}

static void write_part(struct answer *a)
{
    const struct document *d = &a->q->docs[a->doc];
    switch (a->part) {
    case PART_BEGIN:
        begin_document(a->q, &a->w, d);
        a->token = 1;
        a->part = a->q->tokens ? PART_TOKENS : PART_END;
        break;
    case PART_TOKENS: write_ids(a, d); break;
    case PART_LOGPROBS: write_logprobs(a, d); break;
    case PART_END:
        if (a->q->edges)
            write_document_buckets(a->q, &a->w, d, a->by);
        writer_close(&a->w, '}');
        a->part = PART_BEGIN;
        a->doc++;
    }
}

static void begin_answer(struct answer *a)
{
    score_open_answer(&a->call, &a->w, "loglikelihood_rolling");
    writer_key_int(&a->w, "max_length", a->q->max_length);
    writer_key_int(&a->w, "stride", a->q->stride);
    writer_key(&a->w, "results");
    writer_open(&a->w, '[');
    a->begun = true;
}

static void end_answer(struct answer *a)
{
    struct score_counts counts = {0};
    for (int i = 0; i < a->q->n_windows; i++) {
        counts.prompt += (int64_t)(a->q->windows[i].end - a->q->windows[i].begin);
        counts.scored += (int64_t)a->q->windows[i].scored;
    }
    writer_close(&a->w, ']');
    score_close_answer(&a->call, &a->w, &a->q->usage, counts);
}

static bool write_some(void *user)
{
    struct answer *a = user;
    if (!a->begun)
        begin_answer(a);
    if (a->doc < a->q->n_docs)
        write_part(a);
    bool end = a->doc == a->q->n_docs;
    if (end)
        end_answer(a);
    return end;
}

static int answer_next(void *user, struct buf *out)
{
    return api_write_piece(&((struct answer *)user)->w, out, write_some, user);
}

static void answer_done(void *user)
{
    struct answer *a = user;
    api_free(&a->call, a->q->ticket, a->q->reqs, a->q->n_windows);
    api_drop_call(&a->call);
}

/* The answer takes q and `c` over. */
static int answer(struct call *c, struct rolling *q, struct err *err)
{
    struct answer *a = arena_alloc(&c->arena, 1, sizeof(*a));
    int r = a ? api_usage_add(c, q->ticket, q->n_windows, &q->usage, err) : ERR_NOMEM;
    for (int i = 0; i < 2 && r >= 0 && q->edges; i++)
        r = buckets_init(q, &a->by[i]);
    if (r < 0)
        return err_set(err, r, "no memory for the answer");
    a->q = q;
    api_take_call(c, &a->call);
    q->call = &a->call;
    c->resp->stream = (struct http_stream){answer_next, answer_done, a};
    return 0;
}

int rolling_run(struct call *c, struct err *err)
{
    static const char *const known[] = {"model",   "text",   "texts",        "max_length", "stride",
                                        "add_bos", "tokens", "bucket_edges", "routing",    NULL};
    struct rolling *q = arena_alloc(&c->arena, 1, sizeof(*q));
    int r;
    if (!q)
        return err_set(err, ERR_NOMEM, "no memory for the request");
    q->call = c;
    if ((r = parse_options(q, err)) < 0 || (r = parse_documents(q, err)) < 0 || (r = make_windows(q, err)) < 0)
        return r;
    api_note_unknown(c, c->body, known);
    if (q->n_windows)
        r = api_run(c, q->reqs, q->n_windows, "window", &q->ticket, err);
    if (r >= 0)
        r = answer(c, q, err);
    if (r < 0)
        api_free(c, q->ticket, q->reqs, q->n_windows);
    return r;
}
