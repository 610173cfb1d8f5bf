/* Makes text of generated tokens, on the request's thread, while the engine goes on. */
#include "server/api/completion.h"

static bool is_eos(const struct completion *p, int32_t id)
{
    return !p->ignore_eos && model_config_is_eos(p->call->server->info->config, id);
}

static bool is_stop_id(const struct completion *p, int32_t id)
{
    for (size_t i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] == id)
            return true;
    return false;
}

bool completion_has_stops(const struct completion *p)
{
    return p->stop.n || p->n_stop_ids;
}

bool completion_is_silent(const struct completion *p, int32_t id)
{
    const struct tokenizer *t = p->call->server->tokenizer;
    if (!t || id >= tokenizer_vocab_size(t))
        return true;
    if (!p->stop.keep && (is_eos(p, id) || is_stop_id(p, id)))
        return true;
    return p->skip_special && tokenizer_is_special(t, id);
}

static enum finish_reason finish_after(const struct completion *p, const struct completion_choice *c, int32_t id)
{
    if (c->text.hit || is_stop_id(p, id))
        return FINISH_STOP;
    return is_eos(p, id) ? FINISH_EOS : c->n_new == p->max_tokens ? FINISH_LENGTH : FINISH_NONE;
}

bool completion_take_one(struct completion *p, struct engine_ticket *t, int i)
{
    struct completion_choice *c = &p->choices[i];
    int n = engine_tokens(t, i);
    if (c->finish || c->code < 0 || c->n_new >= n)
        return false;
    int32_t id = engine_result(t, i)->new_tokens[c->n_new];
    size_t len = 0, was = c->text.text.cap_bytes;
    const char *text = completion_is_silent(p, id) ? "" : tokenizer_token_bytes(p->call->server->tokenizer, id, false, &len);
    c->text.deaf = c->n_new < p->min_tokens;
    int r = stop_text_add(&c->text, text, len);
    if (!charge_change(api_charge(p->call), was, c->text.text.cap_bytes))
        r = ERR_NOMEM;
    if (r < 0) {
        c->code = r;
        engine_stop(t, i);
        return false;
    }
    c->n_new++;
    c->finish = finish_after(p, c, id);
    if (c->finish == FINISH_STOP)
        engine_stop(t, i);
    return true;
}

void completion_take(struct completion *p, struct engine_ticket *t, int i)
{
    while (completion_take_one(p, t, i))
        ;
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
        if (c->finish != FINISH_STOP && engine_result(t, i)->code < 0)
            return completion_error(p, t, i, err);
    }
    return 0;
}

const char *completion_finish(const struct completion *p, int i, bool ended)
{
    enum finish_reason finish = p->choices[i].finish;
    if (finish == FINISH_STOP || finish == FINISH_EOS)
        return "stop";
    return finish == FINISH_LENGTH || ended ? "length" : NULL;
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
