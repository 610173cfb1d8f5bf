/* The answer of POST /v1/routing, list after list and a slice of a list at a time, so that no more than a piece is ever held. */
#include "engine/tools/inspect_plan.h"
#include "server/api/routing.h"
#include "server/api/score.h"
#include <math.h>

#define SLICE 1024 /* values that are written at once */

typedef void (*write_value)(struct routing_job *j, struct writer *w, int layer, size_t i);

/* Some of a list of n values, from c->at on; true when it is closed. */
static bool write_list(struct routing_job *j, struct writer *w, struct routing_cursor *c, const char *key, size_t n, write_value value)
{
    if (c->at == 0) {
        writer_key(w, key);
        writer_open(w, '[');
    }
    for (size_t to = c->at + SLICE; c->at < n && c->at < to; c->at++)
        value(j, w, c->layer, c->at);
    if (c->at < n)
        return false;
    writer_close(w, ']');
    c->at = 0;
    return true;
}

static const struct eval_result *result_of(const struct routing_job *j)
{
    return engine_result(j->ticket, 0);
}

/* ---- tokens ---- */

static void write_id(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    (void)layer;
    writer_int(w, j->tokens[i]);
}

static void write_text(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    (void)layer;
    api_write_token(j->call, w, j->tokens[i], i == 0, false);
}

static void write_logprob(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    (void)layer;
    if (i)
        writer_float(w, result_of(j)->logprobs[i - 1]);
    else
        writer_null(w);
}

/* What may follow token i, best first. */
static void write_next(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    const struct eval_result *r = result_of(j);
    size_t k = (size_t)j->top_logprobs;
    bool last = i + 1 == j->n;
    const int32_t *ids = last ? r->new_top_ids : r->top_ids + i * k;
    const float *logprobs = last ? r->new_top_logprobs : r->top_logprobs + i * k;
    (void)layer;
    writer_open(w, '[');
    for (size_t n = 0; n < k; n++) {
        writer_open(w, '{');
        writer_key_int(w, "id", ids[n]);
        writer_key(w, "token");
        api_write_token(j->call, w, ids[n], false, false);
        writer_key(w, "logprob");
        writer_float(w, logprobs[n]);
        writer_close(w, '}');
    }
    writer_close(w, ']');
}

/* ---- layers ---- */

static enum decision decision_at(const struct routing_job *j, int layer, size_t i)
{
    const struct eval_result *r = result_of(j);
    return (enum decision)r->routing[(size_t)layer * (size_t)r->n_routing + i];
}

/* A string with a character for each token: the one of its decision (enum decision). */
static void write_codes(struct routing_job *j, struct writer *w, int layer, const char *key, const char *codes)
{
    struct buf text;
    buf_init(&text, j->n);
    writer_key(w, key);
    for (size_t i = 0; i < j->n && w->code >= 0; i++)
        w->code = buf_append(&text, &codes[decision_at(j, layer, i)], 1);
    writer_string(w, text.data, text.len);
    buf_done(&text);
}

static void open_layer(struct routing_job *j, struct writer *w, int l)
{
    const struct layer_plan *p = &j->call->server->info->plan[l];
    const struct eval_result *r = result_of(j);
    writer_open(w, '{');
    writer_key_int(w, "layer", l);
    writer_key_text(w, "kind", layer_plan_kind(p));
    writer_key(w, "forced_dense");
    writer_bool(w, p->forced_dense);
    writer_key_text(w, "router", inspect_router_name(p->router));
    writer_key_text(w, "skip_router", inspect_router_name(p->skip_router));
    writer_key_text(w, "decide", layer_is_routed(p) ? inspect_decide_name(p->decide) : "none");
    writer_key_int(w, "attended", r->rows_routed[l]);
    writer_key_int(w, "executed", r->rows_executed[l]);
    write_codes(j, w, l, "routing", "-01");
    write_codes(j, w, l, "kv", p->kv == KV_ALL ? "111" : "001");
}

static void write_number(struct writer *w, float v)
{
    if (isnan(v))
        writer_null(w);
    else
        writer_float(w, v);
}

static void write_p(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    write_number(w, result_of(j)->probs[i * (size_t)j->call->server->info->config->n_layers + (size_t)layer]);
}

static void write_s0(struct routing_job *j, struct writer *w, int layer, size_t i)
{
    write_number(w, result_of(j)->skip_probs[i * (size_t)j->call->server->info->config->n_layers + (size_t)layer]);
}

/* ---- the whole ---- */

enum part { HEAD, IDS, TEXTS, LOGPROBS, NEXT, LAYERS, LAYER, LAYER_P, LAYER_S0, LAYER_END, TAIL };

static void write_head(struct routing_job *j, struct writer *w)
{
    score_open_answer(j->call, w, "routing");
    writer_key_int(w, "kv_row_bytes", (int64_t)j->call->server->info->kv_row_bytes);
}

static void write_tail(struct routing_job *j, struct writer *w)
{
    writer_close(w, ']');
    score_close_answer(j->call, w, &j->usage, (struct score_counts){.prompt = (int64_t)j->n, .scored = (int64_t)j->n - 1});
}

/* Ends a layer; the part that comes next. */
static enum part end_layer(struct routing_job *j, struct writer *w, struct routing_cursor *c)
{
    writer_close(w, '}');
    return ++c->layer < j->call->server->info->config->n_layers ? LAYER : TAIL;
}

/* Writes some of the part under way; true when the next part is due. */
static bool write_part(struct routing_job *j, struct writer *w, struct routing_cursor *c)
{
    const struct layer_plan *p = &j->call->server->info->plan[c->layer];
    switch ((enum part)c->part) {
    case HEAD: write_head(j, w); return true;
    case IDS: return write_list(j, w, c, "tokens", j->n, write_id);
    case TEXTS: return write_list(j, w, c, "token_strings", j->n, write_text);
    case LOGPROBS: return write_list(j, w, c, "token_logprobs", j->n, write_logprob);
    case NEXT: return !j->top_logprobs || write_list(j, w, c, "next", j->n, write_next);
    case LAYERS:
        writer_key(w, "layers");
        writer_open(w, '[');
        return true;
    case LAYER: open_layer(j, w, c->layer); return true;
    case LAYER_P: return !j->probabilities || !layer_is_routed(p) || write_list(j, w, c, "p", j->n, write_p);
    case LAYER_S0: return !j->probabilities || !layer_is_nested(p) || write_list(j, w, c, "s0", j->n, write_s0);
    case LAYER_END: c->part = (int)end_layer(j, w, c) - 1; return true;
    case TAIL: write_tail(j, w); return true;
    }
    return true;
}

bool routing_write_some(struct routing_job *j, struct writer *w, struct routing_cursor *c)
{
    if (write_part(j, w, c))
        c->part++;
    return c->part > TAIL;
}
