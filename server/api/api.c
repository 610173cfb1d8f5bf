/* See api.h. */
#include "server/api/api.h"
#include "server/api/names.h"
#include <string.h>

const char *api_request_id(const struct call *c)
{
    return c->req ? c->req->id : NULL;
}

void api_count(struct call *c, int64_t tokens, int64_t rows)
{
    if (!c->req)
        return;
    c->req->tokens += tokens;
    c->req->rows += rows;
}

struct charge *api_charge(const struct call *c)
{
    return c->req ? &c->req->charge : NULL;
}

void api_take_call(struct call *c, struct call *ret)
{
    *ret = *c;
    ret->resp = NULL;
    arena_init(&c->arena, 0);
    c->body = NULL;
}

void api_drop_call(struct call *taken)
{
    json_decref(taken->body);
    struct arena arena = taken->arena; /* `taken` may lie in it */
    arena_done(&arena);
}

int api_write_piece(struct writer *w, struct buf *out, bool (*some)(void *user), void *user)
{
    size_t begin = out->len;
    bool end = false;
    w->buf = out;
    while (!end && w->code >= 0 && out->len - begin < API_PIECE)
        end = some(user);
    return w->code < 0 ? w->code : !end;
}

int api_check_model(struct call *c, struct err *err)
{
    const char *name = NULL;
    int r = json_get_string(c->body, "", "model", &name, NULL, err);
    if (json_is_integer(json_object_get(c->body, "model")))
        r = 0; /* lm-evaluation-harness sends a name made of digits as a number */
    if (r < 0 || !c->server->settings->strict_model_name)
        return r;
    if (!name)
        return err_field(err, ERR_NOT_FOUND, "model", "model is missing; with --strict-model-name it must be \"%s\"",
                         c->server->model_name);
    if (strcmp(name, c->server->model_name))
        return err_field(err, ERR_NOT_FOUND, "model", "model: \"%.100s\" is not served here; this is \"%s\"", name, c->server->model_name);
    return r;
}

void api_note_unknown(struct call *c, const json_t *obj, const char *const *known)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)obj, key, v) {
        int i = 0;
        while (known[i] && strcmp(known[i], key))
            i++;
        if (!known[i])
            server_note_unknown(c->server, api_request_id(c), key);
    }
}

/* ---- tokens ---- */

int api_need_tokenizer(struct call *c, const char *name, struct err *err)
{
    if (c->server->tokenizer)
        return 0;
    return err_field(err, ERR_INVALID, name, "%s: this model has no tokenizer; send token ids instead of text", name);
}

static int32_t *alloc_ids(struct call *c, size_t n)
{
    return arena_alloc(&c->arena, n ? n : 1, sizeof(int32_t));
}

static int bad_id(const struct call *c, const char *name, size_t i, long long id, struct err *err)
{
    return err_field(err, ERR_INVALID, name, "%s[%zu]: token id %lld is outside 0 to %d", name, i, id, c->server->info->config->vocab - 1);
}

static int copy_ids(struct call *c, const int32_t *from, size_t n, const char *name, int32_t *ids, struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (from[i] >= c->server->info->config->vocab)
            return bad_id(c, name, i, from[i], err);
    memcpy(ids, from, n * sizeof(*ids));
    return 0;
}

static int read_ids(struct call *c, const json_t *array, const char *name, int32_t *ids, struct err *err)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *v = json_array_get(array, i);
        json_int_t id = json_integer_value(v);
        if (!json_is_integer(v))
            return err_field(err, ERR_INVALID, name, "%s[%zu]: a token id must be an integer", name, i);
        if (id < 0 || id >= c->server->info->config->vocab)
            return bad_id(c, name, i, id, err);
        ids[i] = (int32_t)id;
    }
    return 0;
}

int api_ids(struct call *c, const json_t *array, const char *name, size_t front, int32_t **ret, size_t *ret_n, struct err *err)
{
    size_t n = json_array_size(array);
    const int32_t *taken = json_ids_find(&c->ids, array, &n);
    int32_t *ids = alloc_ids(c, front + n);
    if (!ids)
        return err_field(err, ERR_NOMEM, name, "%s: no memory for %zu ids", name, n);
    int r = taken ? copy_ids(c, taken, n, name, ids + front, err) : read_ids(c, array, name, ids + front, err);
    if (r < 0)
        return r;
    *ret = ids;
    *ret_n = n;
    return 0;
}

int api_check_ids(struct call *c, const struct token_ids *t, const char *name, struct err *err)
{
    int vocab = c->server->info->config->vocab;
    for (size_t i = 0; i < t->n; i++)
        if (t->ids[i] >= vocab)
            return err_field(err, ERR_INVALID, name, "%s: the text has the token id %d, the model has 0 to %d", name, t->ids[i], vocab - 1);
    return 0;
}

int api_charge_text(struct call *c, size_t len, struct err *err)
{
    struct charge *charge = api_charge(c);
    return charge_take(charge, API_TOKENIZER_BYTES * len) ? 0 : charge_error(charge, err);
}

void api_give_text(struct call *c, size_t len)
{
    charge_give(api_charge(c), API_TOKENIZER_BYTES * len);
}

int api_encode(struct call *c, const char *text, size_t len, const char *name, size_t front, int32_t **ret, size_t *ret_n, struct err *err)
{
    struct token_ids t = {0};
    struct err why = {0};
    int32_t *ids = NULL;
    int r = api_need_tokenizer(c, name, err);
    if (r >= 0)
        r = api_charge_text(c, len, err);
    if (r < 0)
        return r;
    r = tokenizer_encode(c->server->tokenizer, text, len, false, API_MAX_TEXT_TOKENS, &t, &why);
    if (r < 0)
        err_field(err, r, name, "%s: %s", name, why.text);
    else
        r = api_check_ids(c, &t, name, err);
    if (r >= 0 && !(ids = alloc_ids(c, front + t.n)))
        r = err_field(err, ERR_NOMEM, name, "%s: no memory for %zu ids", name, t.n);
    if (r >= 0) {
        if (t.n)
            memcpy(ids + front, t.ids, t.n * sizeof(*ids));
        *ret = ids;
        *ret_n = t.n;
    }
    token_ids_done(&t);
    api_give_text(c, len);
    return r;
}

int api_prefix_id(struct call *c, const char *name, int32_t *ret, struct err *err)
{
    int32_t id = c->server->bos >= 0 ? c->server->bos : c->server->eos;
    if (id < 0)
        return err_field(err, ERR_INVALID, name, "%s: it is empty, and the model has neither BOS nor EOS to put in its place", name);
    *ret = id;
    return 0;
}

void api_write_token(struct call *c, struct writer *w, int32_t id, bool first, bool as_id)
{
    const struct spelling *s = as_id ? NULL : spellings_get(&c->server->spellings, id, first);
    char text[32];
    if (s)
        writer_raw(w, spellings_bytes(&c->server->spellings, s), s->len);
    else
        writer_string(w, text, (size_t)snprintf(text, sizeof(text), "token_id:%d", id));
}

/* ---- the engine ---- */

int api_check(const struct engine_ticket *t, int n, int first, int total, const char *what, struct err *err)
{
    for (int i = 0; i < n; i++) {
        const struct eval_result *r = engine_result(t, i);
        if (r->code >= 0)
            continue;
        if (total > 1)
            return err_field(err, r->code, r->err.param, "%s %d: %s", what, first + i, r->err.text);
        if (err)
            *err = r->err;
        return r->code;
    }
    return 0;
}

int api_client_error(enum watch_state client, struct err *err)
{
    if (client == WATCH_GIVEN_UP)
        return err_set(err, ERR_DRAINING, "the server is stopping at once");
    return client == WATCH_GONE ? err_set(err, ERR_CANCELLED, "the client closed the connection") : 0;
}

static void cancel_ticket(void *user, enum watch_state state)
{
    if (state >= WATCH_GONE)
        engine_cancel(user);
}

int api_wait(struct call *c, struct engine_ticket *t, struct err *err)
{
    if (c->req)
        http_watch(c->req, false, cancel_ticket, t);
    engine_wait(t, -1);
    return api_client_error(c->req ? http_unwatch(c->req) : WATCH_HERE, err);
}

static size_t ticket_bytes(const struct call *c, const struct eval_request *reqs, int n)
{
    size_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += engine_request_bytes(c->server->engine, &reqs[i]);
    return bytes;
}

int api_submit(struct call *c, struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err)
{
    size_t bytes = ticket_bytes(c, reqs, n);
    if (!charge_take(api_charge(c), bytes))
        return charge_error(api_charge(c), err);
    if (n > 0)
        reqs[0].client = c->client;
    int r = engine_submit(c->server->engine, reqs, n, ret, err);
    if (r < 0) {
        charge_give(api_charge(c), bytes);
        names_as_request_fields(err);
    }
    return r;
}

void api_free(struct call *c, struct engine_ticket *t, const struct eval_request *reqs, int n)
{
    bool done = t && engine_wait(t, 0);
    for (int i = 0; done && i < n; i++)
        if (engine_result(t, i)->queued_s >= 0)
            histogram_add(&c->server->metrics.queue, engine_result(t, i)->queued_s);
    engine_ticket_free(t);
    if (t)
        charge_give(api_charge(c), ticket_bytes(c, reqs, n));
}

int api_run(struct call *c, struct eval_request *reqs, int n, const char *what, struct engine_ticket **ret, struct err *err)
{
    struct engine_ticket *t = NULL;
    int r = api_submit(c, reqs, n, &t, err);
    if (r < 0)
        return r;
    r = api_wait(c, t, err);
    if (r >= 0)
        r = api_check(t, n, 0, n, what, err);
    if (r < 0) {
        api_free(c, t, reqs, n);
        return r;
    }
    *ret = t;
    return 0;
}

bool api_has_nested(const struct call *c)
{
    const struct engine_info *info = c->server->info;
    bool any = false;
    for (int l = 0; l < info->config->n_layers; l++)
        any |= layer_is_nested(&info->plan[l]);
    return any;
}

int api_usage_add(struct call *c, const struct engine_ticket *t, int n, struct api_usage *u, struct err *err)
{
    int layers = c->server->info->config->n_layers;
    if (!u->routed && !(u->routed = arena_alloc(&c->arena, 2 * (size_t)layers, sizeof(int64_t))))
        return err_set(err, ERR_NOMEM, "no memory for the usage");
    u->executed = u->routed + layers;
    for (int i = 0; i < n; i++) {
        const struct eval_result *r = engine_result(t, i);
        u->computed += r->rows_computed;
        u->cached += r->rows_cached;
        if (!r->rows_routed)
            continue;
        for (int l = 0; l < layers; l++) {
            u->routed[l] += r->rows_routed[l];
            u->executed[l] += r->rows_executed[l];
        }
        sequences_cost_add(&u->cost, c->server->info->config, c->server->info->plan, r->rows_routed, r->rows_executed, r->n_rows);
    }
    return 0;
}

/* ---- errors ---- */

int api_write_error(struct buf *out, const struct err *err)
{
    struct writer w = writer_on(out);
    size_t before = out->len;
    writer_open(&w, '{');
    writer_key(&w, "error");
    writer_open(&w, '{');
    writer_key_text(&w, "message", err->text);
    writer_key_text(&w, "type", err_openai_type(err->code));
    writer_key_text(&w, "param", *err->param ? err->param : NULL);
    writer_key_text(&w, "code", err_name(err->code));
    writer_close(&w, '}');
    writer_close(&w, '}');
    if (w.code < 0 && out->len > before) { /* half of it would look like an answer */
        out->len = before;
        out->data[before] = 0;
    }
    return w.code;
}
