/* Writes the parts of a completions answer. */
#include "server/api/completion.h"
#include <string.h>

/* ---- choices ---- */

static void begin_choice(struct completion *p, struct writer *w, int i)
{
    struct completion_choice *choice = &p->choices[i];
    bool ended = completion_finish(p, i, false) || p->max_tokens == 0;
    struct buf text;
    buf_init(&text, SIZE_MAX / 4);
    if (p->echo && w->code >= 0)
        w->code = completion_prompt_text(p, choice->prompt, &text);
    if (w->code >= 0)
        w->code = buf_append(&text, choice->text.text.data, stop_text_settled(&choice->text, ended));
    writer_open(w, '{');
    writer_key_int(w, "index", i);
    writer_key(w, "text");
    writer_string(w, text.data, text.len);
    writer_key(w, "logprobs");
    if (p->logprobs < 0)
        writer_null(w);
    else
        writer_open(w, '{');
    buf_done(&text);
}

static void end_choice(struct completion *p, struct writer *w, int i)
{
    writer_key_text(w, "finish_reason", completion_finish(p, i, p->max_tokens == 0));
    writer_close(w, '}');
}

/* Some entries of a list; true at its end. */
static bool write_slice(struct completion *p, struct writer *w, const struct engine_ticket *t, struct completion_cursor *c)
{
    size_t n = completion_list_length(p, c->choice, c->list), to = n - c->at < COMPLETION_SLICE ? n : c->at + COMPLETION_SLICE;
    if (c->at == 0)
        completion_open_list(w, c->list);
    completion_write_entries(p, w, t, c->choice, c->list, c->at, to, &c->chars);
    c->at = to;
    if (to < n)
        return false;
    writer_close(w, ']');
    c->at = 0;
    return true;
}

static void begin_lists(struct completion *p, struct writer *w, struct completion_cursor *c)
{
    begin_choice(p, w, c->choice);
    c->begun = true;
    c->list = p->logprobs < 0 ? COMPLETION_LIST_PROMPT : COMPLETION_LIST_TOKENS;
}

static void next_list(struct completion *p, struct writer *w, struct completion_cursor *c)
{
    if (++c->list == COMPLETION_LIST_PROMPT && p->logprobs >= 0)
        writer_close(w, '}');
}

bool completion_write_some(struct completion *p, struct writer *w, const struct engine_ticket *t, struct completion_cursor *c)
{
    int lists = p->prompt_logprobs >= 0 ? COMPLETION_LISTS : COMPLETION_LIST_PROMPT;
    if (!c->begun) {
        begin_lists(p, w, c);
    } else if (c->list < lists) {
        if (write_slice(p, w, t, c))
            next_list(p, w, c);
    } else {
        end_choice(p, w, c->choice);
        *c = (struct completion_cursor){.choice = c->choice + 1};
        return true;
    }
    return false;
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
    api_count(p->call, prompt + made, computed);
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
