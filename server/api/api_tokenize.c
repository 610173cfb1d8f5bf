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
    int r = json_get_string(c->body, "", name, ret, ret_len, err);
    if (r >= 0 && !*ret)
        return err_field(err, ERR_INVALID, "prompt", "prompt is missing");
    return r;
}

int api_tokenize(struct call *c, struct err *err)
{
    static const char *const known[] = {"model", "prompt", "content", "add_special_tokens", NULL};
    struct token_ids ids = {0};
    struct err why = {0};
    const char *text;
    size_t len = 0;
    bool special = false; /* as /v1/completions would encode it */
    int r = api_check_model(c, err);
    if (r >= 0)
        r = find_text(c, &text, &len, err);
    if (r >= 0)
        r = json_get_bool(c->body, "", "add_special_tokens", &special, err);
    if (r >= 0)
        r = api_need_tokenizer(c, "prompt", err);
    if (r < 0)
        return r;
    api_note_unknown(c, c->body, known);
    r = tokenizer_encode(c->server->tokenizer, text, len, special, API_MAX_TEXT_TOKENS, &ids, &why);
    if (r < 0) {
        token_ids_done(&ids);
        return err_field(err, r, "prompt", "prompt: %s", why.text);
    }
    struct writer w = writer_on(&c->resp->body);
    writer_open(&w, '{');
    writer_key_int(&w, "count", (int64_t)ids.n);
    writer_key_int(&w, "max_model_len", c->server->info->max_model_len);
    writer_key(&w, "tokens");
    writer_open(&w, '[');
    for (size_t i = 0; i < ids.n; i++)
        writer_int(&w, ids.ids[i]);
    writer_close(&w, ']');
    writer_close(&w, '}');
    token_ids_done(&ids);
    return w.code < 0 ? err_set(err, w.code, "the answer is too large") : 0;
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
        r = json_get_ids(c->body, "", "tokens", 0, tokenizer_vocab_size(c->server->tokenizer) - 1, API_MAX_TEXT_TOKENS, &ids, &n, err);
    if (r >= 0)
        r = tokenizer_decode(c->server->tokenizer, ids, n, false, &text, &len, err);
    free(ids);
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
