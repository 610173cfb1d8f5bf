/* POST /tokenize, POST /detokenize, GET /tokenizer_info: the harness's remote tokenizer. */
#include "server/api/api.h"
#include <stdlib.h>
#include <string.h>

static int find_text(struct call *c, const char **ret, size_t *ret_len, struct err *err)
{
    const char *name = json_object_get(c->body, "prompt") ? "prompt" : "content";
    *ret = NULL;
    if (json_is_array(json_object_get(c->body, name)))
        return err_field(err, ERR_INVALID, name, "%s must be a string; chat messages are not taken, since no chat template is applied here",
                         name);
    int r = json_get_string(c->body, "", "content", ret, ret_len, err);
    if (r >= 0)
        r = json_get_string(c->body, "", name, ret, ret_len, err);
    if (r >= 0 && !*ret)
        return err_field(err, ERR_INVALID, "prompt", "prompt is missing");
    return r;
}

/* ---- /tokenize ---- */

struct answer {
    struct call call; /* owned: arena and body */
    struct token_ids ids;
    size_t n_sent;
    struct writer w;
};

static bool write_some(void *user)
{
    struct answer *a = user;
    if (a->n_sent == 0) {
        writer_open(&a->w, '{');
        writer_key_int(&a->w, "count", (int64_t)a->ids.n);
        writer_key_int(&a->w, "max_model_len", a->call.server->info->max_model_len);
        writer_key(&a->w, "tokens");
        writer_open(&a->w, '[');
    }
    if (a->n_sent < a->ids.n)
        writer_int(&a->w, a->ids.ids[a->n_sent++]);
    if (a->n_sent < a->ids.n)
        return false;
    writer_close(&a->w, ']');
    writer_close(&a->w, '}');
    return true;
}

static int answer_next(void *user, struct buf *out)
{
    return api_write_piece(&((struct answer *)user)->w, out, write_some, user);
}

static void answer_done(void *user)
{
    struct answer *a = user;
    token_ids_done(&a->ids);
    api_drop_call(&a->call);
}

static int encode(struct call *c, const char *text, size_t len, bool special, struct token_ids *ret, struct err *err)
{
    struct err why = {0};
    int r = api_charge_text(c, len, err);
    if (r < 0)
        return r;
    r = tokenizer_encode(c->server->tokenizer, text, len, special, API_MAX_TEXT_TOKENS, ret, &why);
    api_give_text(c, len);
    if (r >= 0 && !charge_take(api_charge(c), ret->n * sizeof(*ret->ids)))
        return charge_error(api_charge(c), err);
    return r < 0 ? err_field(err, r, "prompt", "prompt: %s", why.text) : 0;
}

int api_tokenize(struct call *c, struct err *err)
{
    static const char *const known[] = {"model", "prompt", "content", "add_special_tokens", NULL};
    struct answer *a = arena_alloc(&c->arena, 1, sizeof(*a));
    const char *text;
    size_t len = 0;
    bool special = false; /* as /v1/completions would encode it */
    int r = a ? api_check_model(c, err) : err_set(err, ERR_NOMEM, "no memory for the answer");
    if (r >= 0)
        r = find_text(c, &text, &len, err);
    if (r >= 0)
        r = json_get_bool(c->body, "", "add_special_tokens", &special, err);
    if (r >= 0)
        r = api_need_tokenizer(c, "prompt", err);
    if (r < 0)
        return r;
    api_note_unknown(c, c->body, known);
    r = encode(c, text, len, special, &a->ids, err);
    if (r < 0) {
        token_ids_done(&a->ids);
        return r;
    }
    api_count(c, (int64_t)a->ids.n, 0);
    api_take_call(c, &a->call);
    c->resp->stream = (struct http_stream){answer_next, answer_done, a};
    return 0;
}

/* ---- /detokenize ---- */

/* Ids that the model has and the tokenizer lacks add nothing, as in the tokenizers library's decode. */
static size_t drop_unnamed(const struct tokenizer *t, int32_t *ids, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < tokenizer_vocab_size(t))
            ids[kept++] = ids[i];
    return kept;
}

static int largest_id(const struct call *c)
{
    int named = tokenizer_vocab_size(c->server->tokenizer), vocab = c->server->info->config->vocab;
    return (named > vocab ? named : vocab) - 1;
}

/* The text's bytes, and as many again for what JSON makes of it. */
static int charge_decoded(struct call *c, const int32_t *ids, size_t n, struct err *err)
{
    size_t bytes = 0, len;
    for (size_t i = 0; i < n; i++) {
        tokenizer_token_bytes(c->server->tokenizer, ids[i], false, &len);
        bytes += 2 * len;
    }
    return charge_take(api_charge(c), bytes + n * sizeof(*ids)) ? 0 : charge_error(api_charge(c), err);
}

int api_detokenize(struct call *c, struct err *err)
{
    static const char *const known[] = {"model", "tokens", NULL};
    int32_t *ids = NULL;
    size_t n = 0, len = 0;
    char *text = NULL;
    int r = api_check_model(c, err);
    if (r >= 0)
        r = api_need_tokenizer(c, "tokens", err);
    if (r >= 0 && !json_is_array(json_object_get(c->body, "tokens")))
        r = err_field(err, ERR_INVALID, "tokens", "tokens must be a list of token ids");
    if (r >= 0)
        r = json_get_ids(c->body, "", "tokens", 0, largest_id(c), API_MAX_TEXT_TOKENS, &ids, &n, err);
    if (r >= 0) {
        n = drop_unnamed(c->server->tokenizer, ids, n);
        r = charge_decoded(c, ids, n, err);
    }
    if (r >= 0)
        r = tokenizer_decode(c->server->tokenizer, ids, n, false, &text, &len, err);
    free(ids);
    api_count(c, (int64_t)n, 0);
    if (r < 0)
        return r;
    api_note_unknown(c, c->body, known);
    struct writer w = writer_on(&c->resp->body);
    writer_open(&w, '{');
    writer_key(&w, "prompt");
    writer_string(&w, text, len);
    writer_close(&w, '}');
    free(text);
    return w.code < 0 ? err_set(err, w.code, "the answer is too large") : 0;
}

/* ---- /tokenizer_info ---- */

static void write_piece(struct call *c, struct writer *w, const char *key, int32_t id)
{
    const struct tokenizer *t = c->server->tokenizer;
    writer_key_text(w, key, id >= 0 && id < tokenizer_vocab_size(t) ? tokenizer_piece(t, id) : NULL);
}

int api_tokenizer_info(struct call *c, struct err *err)
{
    const struct tokenizer *t = c->server->tokenizer;
    if (!c->server->settings->tokenizer_info)
        return err_set(err, ERR_NOT_FOUND, "/tokenizer_info is switched off (--tokenizer-info off)");
    if (!t)
        return err_set(err, ERR_NOT_FOUND, "this model has no tokenizer");
    struct writer w = writer_on(&c->resp->body);
    writer_open(&w, '{');
    write_piece(c, &w, "bos_token", c->server->bos);
    write_piece(c, &w, "eos_token", c->server->eos);
    write_piece(c, &w, "pad_token", tokenizer_pad(t));
    write_piece(c, &w, "unk_token", tokenizer_unk(t));
    writer_key_text(&w, "chat_template", tokenizer_chat_template(t));
    writer_key_int(&w, "bos_token_id", c->server->bos);
    writer_key_int(&w, "eos_token_id", c->server->eos);
    writer_key_int(&w, "vocab_size", tokenizer_vocab_size(t));
    writer_close(&w, '}');
    return w.code < 0 ? err_set(err, w.code, "no memory for the answer") : 0;
}
