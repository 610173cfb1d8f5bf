/* Writes the parts of a completions answer. The same float is printed for a token's logprob and for its place among the
 * alternatives, because clients compare them exactly. */
#include "server/api/completion.h"
#include <stdlib.h>
#include <string.h>

static const char *entry_text(struct completion *p, const struct completion_entry *e, size_t *len)
{
    const struct tokenizer *t = p->call->server->tokenizer;
    *len = 0;
    return e->silent || !t || e->id >= tokenizer_vocab_size(t) ? "" : tokenizer_token_bytes(t, e->id, e->first, len);
}

static bool listed(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* The best `logprobs` tokens, and the token itself. Spellings are unique, so no key is written twice. */
static void write_top(struct completion *p, struct writer *w, const struct completion_entry *e)
{
    if (!e->scored) {
        writer_null(w);
        return;
    }
    writer_open(w, '{');
    for (int i = 0; i <= p->logprobs; i++) {
        bool own = i == p->logprobs;
        if (own && listed(e->top_ids, p->logprobs, e->id))
            break;
        api_write_token(p->call, w, own ? e->id : e->top_ids[i], false, p->token_ids);
        if (w->code >= 0)
            w->code = buf_append(w->buf, ":", 1);
        w->comma = false;
        writer_float(w, own ? e->logprob : e->top_logprobs[i]);
    }
    writer_close(w, '}');
}

/* Offsets count code points. A token that begins inside a character gets the offset of that character. */
static void write_offsets(struct completion *p, struct writer *w, const struct completion_entry *entries, size_t n, size_t *chars)
{
    for (size_t i = 0; i < n; i++) {
        size_t len, at = *chars;
        const char *s = entry_text(p, &entries[i], &len);
        writer_int(w, (int64_t)(len && ((unsigned char)s[0] & 0xc0) == 0x80 && at ? at - 1 : at));
        for (size_t k = 0; k < len; k++)
            *chars += ((unsigned char)s[k] & 0xc0) != 0x80;
    }
}

void completion_write_logprobs(struct completion *p, struct writer *w, const struct completion_entry *e, size_t n, size_t *chars)
{
    writer_key(w, "logprobs");
    if (p->logprobs < 0) {
        writer_null(w);
        return;
    }
    writer_open(w, '{');
    writer_key(w, "tokens");
    writer_open(w, '[');
    for (size_t i = 0; i < n; i++)
        api_write_token(p->call, w, e[i].id, e[i].first, p->token_ids);
    writer_close(w, ']');
    writer_key(w, "token_logprobs");
    writer_open(w, '[');
    for (size_t i = 0; i < n; i++)
        if (e[i].scored)
            writer_float(w, e[i].logprob);
        else
            writer_null(w);
    writer_close(w, ']');
    writer_key(w, "top_logprobs");
    writer_open(w, '[');
    for (size_t i = 0; i < n; i++)
        write_top(p, w, &e[i]);
    writer_close(w, ']');
    writer_key(w, "text_offset");
    writer_open(w, '[');
    write_offsets(p, w, e, n, chars);
    writer_close(w, ']');
    writer_close(w, '}');
}

struct completion_entry completion_new_entry(const struct completion *p, const struct engine_ticket *t, int i, int k)
{
    const struct eval_result *r = engine_result(t, i);
    size_t top = (size_t)k * (size_t)(p->logprobs > 1 ? p->logprobs : 1);
    return (struct completion_entry){.id = r->new_tokens[k],
                                     .scored = true,
                                     .logprob = r->new_logprobs[k],
                                     .top_ids = r->new_top_ids + top,
                                     .top_logprobs = r->new_top_logprobs + top,
                                     .silent = !p->ignore_eos && model_config_is_eos(p->call->server->info->config, r->new_tokens[k])};
}

static size_t fill_entries(struct completion *p, const struct engine_ticket *t, int c, struct completion_entry *e)
{
    const struct completion_prompt *prompt = p->choices[c].prompt;
    const struct eval_result *r = engine_result(t, c);
    int k1 = p->logprobs > 1 ? p->logprobs : 1;
    size_t n = 0;
    for (size_t i = 0; p->echo && i < prompt->n; i++, n++) {
        e[n] = (struct completion_entry){.id = prompt->ids[i], .scored = i > 0, .first = i == prompt->hidden, .silent = i < prompt->hidden};
        if (i > 0) {
            e[n].logprob = r->logprobs[i - 1];
            e[n].top_ids = r->top_ids + (i - 1) * (size_t)k1;
            e[n].top_logprobs = r->top_logprobs + (i - 1) * (size_t)k1;
        }
    }
    for (int i = 0; i < p->choices[c].n_new; i++, n++)
        e[n] = completion_new_entry(p, t, c, i);
    return n;
}

void completion_write_choice(struct completion *p, struct writer *w, const struct engine_ticket *t, int i)
{
    struct completion_choice *choice = &p->choices[i];
    struct completion_entry *entries = NULL;
    size_t n = 0, chars = 0;
    struct buf text;
    buf_init(&text, w->buf->max_bytes);
    if (p->logprobs >= 0) {
        entries = calloc(choice->prompt->n + (size_t)choice->n_new, sizeof(*entries));
        w->code = entries ? w->code : ERR_NOMEM;
        n = entries ? fill_entries(p, t, i, entries) : 0;
    }
    if (p->echo && w->code >= 0)
        w->code = completion_prompt_text(p, choice->prompt, &text);
    if (w->code >= 0)
        w->code = buf_append(&text, choice->text.text.data, stop_text_settled(&choice->text, true));
    writer_open(w, '{');
    writer_key_int(w, "index", i);
    writer_key(w, "text");
    writer_string(w, text.data, text.len);
    completion_write_logprobs(p, w, entries, n, &chars);
    writer_key_text(w, "finish_reason", completion_finish(p, t, i));
    writer_close(w, '}');
    buf_done(&text);
    free(entries);
}

void completion_write_head(struct completion *p, struct writer *w)
{
    char id[HTTP_ID_MAX + 8];
    const char *request = api_request_id(p->call);
    snprintf(id, sizeof(id), "cmpl-%s", request ? request : "local");
    writer_key_text(w, "id", id);
    writer_key_text(w, "object", "text_completion");
    writer_key_int(w, "created", p->created);
    writer_key_text(w, "model", p->call->server->model_name);
}

void completion_write_usage(struct completion *p, struct writer *w, const struct engine_ticket *t)
{
    int64_t prompt = 0, made = 0, dropped = 0, computed = 0, cached = 0;
    for (int i = 0; i < p->n_choices; i++) {
        const struct eval_result *r = engine_result(t, i);
        int over = r->n_new - p->choices[i].n_new; /* generated behind a stop string; each took a row of its own */
        prompt += i % p->n ? 0 : (int64_t)p->choices[i].prompt->n;
        made += p->choices[i].n_new;
        dropped += over;
        computed += r->rows_computed - over;
        cached += r->rows_cached;
    }
    atomic_fetch_add(&p->call->server->metrics.prompt_tokens, (uint64_t)prompt);
    atomic_fetch_add(&p->call->server->metrics.completion_tokens, (uint64_t)made);
    atomic_fetch_add(&p->call->server->metrics.dropped_tokens, (uint64_t)dropped);
    writer_key(w, "usage");
    writer_open(w, '{');
    writer_key_int(w, "prompt_tokens", prompt);
    writer_key_int(w, "completion_tokens", made);
    writer_key_int(w, "total_tokens", prompt + made);
    writer_key(w, "prompt_tokens_details");
    writer_open(w, '{');
    writer_key_int(w, "cached_tokens", cached);
    writer_key_int(w, "computed_tokens", computed);
    writer_close(w, '}');
    writer_close(w, '}');
}
