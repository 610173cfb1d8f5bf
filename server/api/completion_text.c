/* Makes text of generated tokens, on the request's thread, while the engine goes on. */
#include "server/api/completion.h"

/* What a generated token adds to the text; "" for the EOS that ends it, and where there is no tokenizer. */
static const char *token_text(const struct completion *p, int32_t id, size_t *ret_len)
{
    const struct server *s = p->call->server;
    *ret_len = 0;
    if (!s->tokenizer || id >= tokenizer_vocab_size(s->tokenizer) || (!p->ignore_eos && model_config_is_eos(s->info->config, id)))
        return "";
    return tokenizer_token_bytes(s->tokenizer, id, false, ret_len);
}

void completion_take(struct completion *p, struct engine_ticket *t, int i)
{
    struct completion_choice *c = &p->choices[i];
    const int32_t *tokens = engine_result(t, i)->new_tokens;
    int n = engine_tokens(t, i), r = c->code;
    size_t was = c->text.text.cap_bytes;
    while (c->n_new < n && !c->text.hit && r >= 0) {
        size_t len;
        const char *text = token_text(p, tokens[c->n_new], &len);
        r = stop_text_add(&c->text, text, len);
        c->n_new += r >= 0;
        if (r)
            engine_stop(t, i);
    }
    if (!charge_change(api_charge(p->call), was, c->text.text.cap_bytes))
        r = ERR_NOMEM;
    c->code = r < 0 ? r : 0;
}

static int completion_error(const struct completion *p, const struct engine_ticket *t, int i, struct err *err)
{
    const struct eval_result *r = engine_result(t, i);
    if (p->n_choices > 1)
        return err_field(err, r->code, r->err.param, "prompt %d: %s", i, r->err.text);
    *err = r->err;
    return r->code;
}

int completion_check(struct completion *p, const struct engine_ticket *t, struct err *err)
{
    for (int i = 0; i < p->n_choices; i++) {
        const struct completion_choice *c = &p->choices[i];
        if (c->code < 0)
            return err_set(err, c->code, "no memory for the text of choice %d", i);
        if (!c->text.hit && engine_result(t, i)->code < 0)
            return completion_error(p, t, i, err);
    }
    return 0;
}

const char *completion_finish(const struct completion *p, const struct engine_ticket *t, int i)
{
    return p->choices[i].text.hit || engine_result(t, i)->finish == FINISH_EOS ? "stop" : "length";
}

int completion_prompt_text(const struct completion *p, const struct completion_prompt *prompt, struct buf *out)
{
    const struct tokenizer *t = p->call->server->tokenizer;
    if (prompt->text)
        return buf_append(out, prompt->text, prompt->text_len);
    int r = 0;
    for (size_t i = prompt->hidden; t && i < prompt->n && r >= 0; i++) {
        size_t len = 0;
        const char *s = prompt->ids[i] < tokenizer_vocab_size(t) ? tokenizer_token_bytes(t, prompt->ids[i], i == prompt->hidden, &len) : "";
        r = buf_append(out, s, len);
    }
    return r;
}
