/* Writes the parts of a completions answer. The same float is printed for a token's logprob and for its place among the
 * alternatives, because clients compare them exactly. */
#include "server/api/completion.h"
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
static void write_offset(struct completion *p, struct writer *w, const struct completion_entry *e, size_t *chars)
{
    size_t len, at = *chars;
    const char *s = entry_text(p, e, &len);
    writer_int(w, (int64_t)(len && ((unsigned char)s[0] & 0xc0) == 0x80 && at ? at - 1 : at));
    for (size_t k = 0; k < len; k++)
        *chars += ((unsigned char)s[k] & 0xc0) != 0x80;
}

enum list { LIST_TOKENS, LIST_LOGPROBS, LIST_TOP, LIST_OFFSETS, LIST_PROMPT, LIST_END };
#define LIST_COUNT LIST_PROMPT /* members of "logprobs"; the other stands beside it */
static const char *const list_names[LIST_END] = {"tokens", "token_logprobs", "top_logprobs", "text_offset", "prompt_logprobs"};

/* Place among the best, from 1; 0: not among those that are known. */
static int rank_of(const struct completion_entry *e, int n_top)
{
    for (int i = 0; i < n_top; i++)
        if (e->top_ids[i] == e->id)
            return i + 1;
    return 0;
}

static void write_ranked(struct completion *p, struct writer *w, int32_t id, float logprob, int rank, bool first)
{
    char key[16];
    snprintf(key, sizeof(key), "%d", id);
    writer_key(w, key);
    writer_open(w, '{');
    writer_key(w, "logprob");
    writer_float(w, logprob);
    writer_key(w, "rank");
    if (rank)
        writer_int(w, rank);
    else
        writer_null(w);
    writer_key(w, "decoded_token");
    api_write_token(p->call, w, id, first, p->token_ids);
    writer_close(w, '}');
}

/* One of prompt_logprobs, as vLLM writes it: the token itself first, then the best, under their ids. */
static void write_prompt_entry(struct completion *p, struct writer *w, const struct completion_entry *e)
{
    if (!e->scored) {
        writer_null(w);
        return;
    }
    writer_open(w, '{');
    write_ranked(p, w, e->id, e->logprob, rank_of(e, p->n_top), e->first);
    for (int i = 0; i < p->prompt_logprobs; i++)
        if (e->top_ids[i] != e->id)
            write_ranked(p, w, e->top_ids[i], e->top_logprobs[i], i + 1, false);
    writer_close(w, '}');
}

static void write_item(struct completion *p, struct writer *w, enum list list, const struct completion_entry *e, size_t *chars)
{
    if (list == LIST_TOKENS)
        api_write_token(p->call, w, e->id, e->first, p->token_ids);
    else if (list == LIST_TOP)
        write_top(p, w, e);
    else if (list == LIST_OFFSETS)
        write_offset(p, w, e, chars);
    else if (list == LIST_PROMPT)
        write_prompt_entry(p, w, e);
    else if (e->scored)
        writer_float(w, e->logprob);
    else
        writer_null(w);
}

/* ---- entries ---- */

static size_t n_echoed(const struct completion *p, int i)
{
    return p->echo ? p->choices[i].prompt->n : 0;
}

static struct completion_entry echoed_entry(const struct completion *p, const struct eval_result *r, int i, size_t k)
{
    const struct completion_prompt *prompt = p->choices[i].prompt;
    size_t k1 = p->n_top > 1 ? (size_t)p->n_top : 1;
    struct completion_entry e = {.id = prompt->ids[k], .scored = k > 0, .first = k == prompt->hidden, .silent = k < prompt->hidden};
    if (k > 0) {
        e.logprob = r->logprobs[k - 1];
        e.top_ids = r->top_ids + (k - 1) * k1;
        e.top_logprobs = r->top_logprobs + (k - 1) * k1;
    }
    return e;
}

/* Entry k of choice i, those of an echoed prompt first. */
static struct completion_entry entry_at(const struct completion *p, const struct engine_ticket *t, int i, size_t k)
{
    const struct eval_result *r = engine_result(t, i);
    size_t n = n_echoed(p, i), top = (k - n) * (size_t)(p->n_top > 1 ? p->n_top : 1);
    if (k < n)
        return echoed_entry(p, r, i, k);
    k -= n;
    return (struct completion_entry){.id = r->new_tokens[k],
                                     .scored = true,
                                     .logprob = r->new_logprobs[k],
                                     .top_ids = r->new_top_ids + top,
                                     .top_logprobs = r->new_top_logprobs + top,
                                     .silent = completion_is_silent(p, r->new_tokens[k])};
}

void completion_write_logprobs(struct completion *p, struct writer *w, const struct engine_ticket *t, int i, int from, int to,
                               size_t *chars)
{
    writer_key(w, "logprobs");
    if (p->logprobs < 0) {
        writer_null(w);
        return;
    }
    writer_open(w, '{');
    for (int list = 0; list < LIST_COUNT; list++) {
        writer_key(w, list_names[list]);
        writer_open(w, '[');
        for (int k = from; k < to; k++) {
            struct completion_entry e = entry_at(p, t, i, n_echoed(p, i) + (size_t)k);
            write_item(p, w, (enum list)list, &e, chars);
        }
        writer_close(w, ']');
    }
    writer_close(w, '}');
}

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

static size_t n_entries(const struct completion *p, int i, int list)
{
    return list == LIST_PROMPT ? p->choices[i].prompt->n : n_echoed(p, i) + (size_t)p->choices[i].n_new;
}

/* Some entries of a list; true at its end. */
static bool write_slice(struct completion *p, struct writer *w, const struct engine_ticket *t, struct completion_cursor *c)
{
    size_t n = n_entries(p, c->choice, c->list);
    if (c->at == 0) {
        writer_key(w, list_names[c->list]);
        writer_open(w, '[');
    }
    for (size_t to = c->at + COMPLETION_SLICE; c->at < n && c->at < to; c->at++) {
        struct completion_entry e =
            c->list == LIST_PROMPT ? echoed_entry(p, engine_result(t, c->choice), c->choice, c->at) : entry_at(p, t, c->choice, c->at);
        write_item(p, w, (enum list)c->list, &e, &c->chars);
    }
    if (c->at < n)
        return false;
    writer_close(w, ']');
    c->at = 0;
    return true;
}

static void begin_lists(struct completion *p, struct writer *w, struct completion_cursor *c)
{
    begin_choice(p, w, c->choice);
    c->begun = true;
    c->list = p->logprobs < 0 ? LIST_PROMPT : 0;
}

static void next_list(struct completion *p, struct writer *w, struct completion_cursor *c)
{
    if (++c->list == LIST_COUNT && p->logprobs >= 0)
        writer_close(w, '}');
}

bool completion_write_some(struct completion *p, struct writer *w, const struct engine_ticket *t, struct completion_cursor *c)
{
    int lists = p->prompt_logprobs >= 0 ? LIST_END : LIST_COUNT;
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
