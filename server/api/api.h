/* One request being answered, and what the endpoint families share: reading fields, BOS, token spelling, waiting for the engine.
 *
 * A handler reads c->body, appends its answer to c->resp->body (or sets c->resp->stream) and returns 0; or it returns a negative
 * code with the sentence in `err`, and routes.c writes the error. It leaves nothing behind: what it needs beyond its return
 * lies in c->arena, dropped whole after the request. */
#pragma once
#include "common/arena.h"
#include "common/json.h"
#include "common/json_ids.h"
#include "engine/tools/flops.h"
#include "server/api/server.h"
#include "server/http/http.h"
#include "server/http/writer.h"

#define API_MAX_SEQUENCES 65536       /* prompts x n, continuations or windows of one request */
#define API_MAX_TEXT_TOKENS (1 << 24) /* ids that one text may become */

struct call {
    struct server *server;
    struct http_request *req; /* NULL: not over HTTP (dtrnet score) */
    struct http_response *resp;
    uint64_t client;     /* who asks (client_id.h); 0: nobody in particular */
    json_t *body;        /* an object; NULL where the route has none */
    struct json_ids ids; /* lists that were taken out of it; in the arena */
    struct arena arena;
};

/* Endpoints; the families are in the file of the same name. */
int api_completions(struct call *c, struct err *err);
int api_chat_completions(struct call *c, struct err *err);
int api_loglikelihood(struct call *c, struct err *err);
int api_loglikelihood_rolling(struct call *c, struct err *err);
int api_routing(struct call *c, struct err *err);
int api_tokenize(struct call *c, struct err *err);
int api_detokenize(struct call *c, struct err *err);
int api_tokenizer_info(struct call *c, struct err *err);
int api_models(struct call *c, struct err *err);
int api_model(struct call *c, struct err *err);
int api_health(struct call *c, struct err *err);
int api_ready(struct call *c, struct err *err);
int api_metrics(struct call *c, struct err *err);
int api_version(struct call *c, struct err *err);
int api_page(struct call *c, struct err *err);
int api_openapi(struct call *c, struct err *err);

/* An answer that is written after the handler has returned (http_stream) owns the call: it is moved to *ret, which may lie in its own arena, and the
 * handler's is left empty. */
void api_take_call(struct call *c, struct call *ret);
void api_drop_call(struct call *taken);
#define API_PIECE 65536 /* bytes that such an answer appends at once, about */
/* The `next` of such an answer (http_stream): calls `some`, which writes a little more to w and is true at the answer's end, until there is a piece
 * in `out`. */
int api_write_piece(struct writer *w, struct buf *out, bool (*some)(void *user), void *user);

const char *api_request_id(const struct call *c); /* NULL without HTTP */

/* Refuses another `model` under --strict-model-name, and a `model` that is no string. */
int api_check_model(struct call *c, struct err *err);
/* Every key of `obj` that is not in `known` (NULL-terminated) is noted as unknown. */
void api_note_unknown(struct call *c, const json_t *obj, const char *const *known);

/* Ids of a JSON array, each in [0, vocab); borrowed from the arena with `front` free places before them. `name` is the field's. */
int api_ids(struct call *c, const json_t *array, const char *name, size_t front, int32_t **ret, size_t *ret_n, struct err *err);
/* What a tokenizer takes while it encodes a text, its ids included, for each byte: measured, one long word is the worst. To be given back after. */
#define API_TOKENIZER_BYTES 32
int api_charge_text(struct call *c, size_t len, struct err *err);
void api_give_text(struct call *c, size_t len);
/* Ids of a text, likewise. No BOS is added. */
int api_encode(struct call *c, const char *text, size_t len, const char *name, size_t front, int32_t **ret, size_t *ret_n, struct err *err);
/* Refuses ids of a text that the model does not have. */
int api_check_ids(struct call *c, const struct token_ids *ids, const char *name, struct err *err);
int api_need_tokenizer(struct call *c, const char *name, struct err *err);
/* The one token of an empty context: BOS, else EOS. */
int api_prefix_id(struct call *c, const char *name, int32_t *ret, struct err *err);

/* The spelling of a token in an answer: the tokenizer's, or "token_id:N" where there is none or `as_id` asks. */
void api_write_token(struct call *c, struct writer *w, int32_t id, bool first, bool as_id);

/* Adds to what the log tells of the request. */
void api_count(struct call *c, int64_t tokens, int64_t rows);

/* Memory of the request; NULL without HTTP. */
struct charge *api_charge(const struct call *c);
/* engine_submit for the call's client, its memory charged; errors name the request's fields. */
int api_submit(struct call *c, struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err);
/* Frees a ticket (NULL is valid) and gives back what api_submit charged for the same requests. */
void api_free(struct call *c, struct engine_ticket *t, const struct eval_request *reqs, int n);
/* Submits and waits; a client that leaves, or a server that gives up, cancels. On success every result's code is 0. `what` names
 * a sequence in errors ("prompt"). The ticket is the caller's: api_free. */
int api_run(struct call *c, struct eval_request *reqs, int n, const char *what, struct engine_ticket **ret, struct err *err);
/* The waiting half, for a ticket that was submitted before; what became of it is for api_check. */
int api_wait(struct call *c, struct engine_ticket *t, struct err *err);
/* The first failure among the ticket's n results, which are sequences first .. of `total`. */
int api_check(const struct engine_ticket *t, int n, int first, int total, const char *what, struct err *err);
/* The error of a request whose client has left (WATCH_GONE) or which the server gives up (WATCH_GIVEN_UP); 0 for the others. */
int api_client_error(enum watch_state client, struct err *err);

/* Positions over results: computed, cached, and routed in each layer ([n_layers]; NULL: none yet); what they cost without reuse. */
struct api_usage {
    int64_t computed, cached;
    int64_t *routed, *executed; /* [n_layers] input positions that attended, and that did not skip the layer */
    struct sequences_cost cost;
};
/* Has the model nested layers, whose skipping is told apart? */
bool api_has_nested(const struct call *c);
/* Adds those of a ticket's n. */
int api_usage_add(struct call *c, const struct engine_ticket *t, int n, struct api_usage *u, struct err *err);

/* {"error": {...}}; on an error nothing of it. */
int api_write_error(struct buf *out, const struct err *err);
