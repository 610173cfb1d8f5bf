/* Writes the lists of a completions answer: an entry for each token. They are most of an answer, so each entry is put where it belongs in the
 * answer's bytes at once. The same float is printed for a token's logprob and for its place among the alternatives, because clients compare
 * them exactly. */
#include "server/api/completion.h"
#include <math.h>
#include <string.h>

struct entry {
    int32_t id;
    float logprob;
    bool scored;            /* false: null (the first token of a prompt) */
    bool first, silent;     /* the first of its text; adds no text */
    const int32_t *top_ids; /* [k1], best first */
    const float *top_logprobs;
};

#define FLOAT_ROOM 32 /* json_format_float's */
#define NAME_ROOM 32  /* of "token_id:N" */

/* ---- pieces; each returns where it ends ---- */

static char *put(char *o, const char *s, size_t n)
{
    memcpy(o, s, n);
    return o + n;
}

static char *put_count(char *o, uint64_t v)
{
    char digits[24], *p = digits + sizeof(digits);
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    return put(o, p, (size_t)(digits + sizeof(digits) - p));
}

static char *put_float(char *o, const struct completion *p, float v)
{
    return isfinite(v) ? o + float_memo_write(p->floats, o, v) : put(o, "null", 4);
}

static const struct spelling *spelling_of(const struct completion *p, int32_t id, bool first)
{
    return p->token_ids ? NULL : spellings_get(&p->call->server->spellings, id, first);
}

/* Bytes that put_token may need. */
static size_t token_room(const struct spelling *s)
{
    return s ? s->len : NAME_ROOM;
}

static char *put_token(char *o, const struct completion *p, const struct spelling *s, int32_t id)
{
    if (s)
        return put(o, spellings_bytes(&p->call->server->spellings, s), s->len);
    o = put(o, "\"token_id:", 10);
    o = put_count(o, (uint64_t)id);
    *o = '"';
    return o + 1;
}

/* ---- items ---- */

static void write_token(const struct completion *p, struct writer *w, int32_t id, bool first)
{
    const struct spelling *s = spelling_of(p, id, first);
    char *o = writer_begin(w, token_room(s));
    if (o)
        writer_end(w, put_token(o, p, s, id));
}

static void write_logprob(const struct completion *p, struct writer *w, float v)
{
    char *o = writer_begin(w, FLOAT_ROOM);
    if (o)
        writer_end(w, put_float(o, p, v));
}

static bool listed(const int32_t *ids, int n, int32_t id)
{
    for (int i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static size_t alternative_room(const struct completion *p, int32_t id)
{
    return token_room(spelling_of(p, id, false)) + 2 + FLOAT_ROOM;
}

/* With a comma behind it. */
static char *put_alternative(char *o, const struct completion *p, int32_t id, float logprob)
{
    o = put_token(o, p, spelling_of(p, id, false), id);
    *o++ = ':';
    o = put_float(o, p, logprob);
    *o = ',';
    return o + 1;
}

/* The best `logprobs` tokens, and the token itself. Spellings are unique, so no key is written twice. */
static void write_top(const struct completion *p, struct writer *w, const struct entry *e)
{
    size_t room = alternative_room(p, e->id) + 2;
    for (int i = 0; i < p->logprobs; i++)
        room += alternative_room(p, e->top_ids[i]);
    char *o = writer_begin(w, room);
    if (!o)
        return;
    *o++ = '{';
    for (int i = 0; i < p->logprobs; i++)
        o = put_alternative(o, p, e->top_ids[i], e->top_logprobs[i]);
    if (!listed(e->top_ids, p->logprobs, e->id))
        o = put_alternative(o, p, e->id, e->logprob);
    o[-1] = '}'; /* there was at least one */
    writer_end(w, o);
}

/* Offsets count code points. A token that begins inside a character gets the offset of that character. */
static void write_offset(const struct completion *p, struct writer *w, const struct entry *e, size_t *chars)
{
    const struct spelling *s = e->silent ? NULL : spellings_get(&p->call->server->spellings, e->id, e->first);
    char *o = writer_begin(w, NAME_ROOM);
    if (!o)
        return;
    writer_end(w, put_count(o, s && s->inside && *chars ? *chars - 1 : *chars));
    *chars += s ? s->chars : 0;
}

/* Place among the best, from 1; 0: not among those that are known. */
static int rank_of(const struct entry *e, int n_top)
{
    for (int i = 0; i < n_top; i++)
        if (e->top_ids[i] == e->id)
            return i + 1;
    return 0;
}

static void write_ranked(const struct completion *p, struct writer *w, int32_t id, float logprob, int rank, bool first)
{
    char key[16];
    snprintf(key, sizeof(key), "%d", id);
    writer_key(w, key);
    writer_open(w, '{');
    writer_key(w, "logprob");
    write_logprob(p, w, logprob);
    writer_key(w, "rank");
    if (rank)
        writer_int(w, rank);
    else
        writer_null(w);
    writer_key(w, "decoded_token");
    write_token(p, w, id, first);
    writer_close(w, '}');
}

/* One of prompt_logprobs, as vLLM writes it: the token itself first, then the best, under their ids. */
static void write_prompt_entry(const struct completion *p, struct writer *w, const struct entry *e)
{
    writer_open(w, '{');
    write_ranked(p, w, e->id, e->logprob, rank_of(e, p->n_top), e->first);
    for (int i = 0; i < p->prompt_logprobs; i++)
        if (e->top_ids[i] != e->id)
            write_ranked(p, w, e->top_ids[i], e->top_logprobs[i], i + 1, false);
    writer_close(w, '}');
}

static void write_item(const struct completion *p, struct writer *w, enum completion_list list, const struct entry *e, size_t *chars)
{
    if (list == COMPLETION_LIST_TOKENS)
        write_token(p, w, e->id, e->first);
    else if (list == COMPLETION_LIST_OFFSETS)
        write_offset(p, w, e, chars);
    else if (!e->scored)
        writer_null(w);
    else if (list == COMPLETION_LIST_TOP)
        write_top(p, w, e);
    else if (list == COMPLETION_LIST_PROMPT)
        write_prompt_entry(p, w, e);
    else
        write_logprob(p, w, e->logprob);
}

/* ---- entries ---- */

static size_t n_alternatives(const struct completion *p)
{
    return p->n_top > 1 ? (size_t)p->n_top : 1;
}

static size_t n_echoed(const struct completion *p, int i)
{
    return p->echo ? p->choices[i].prompt->n : 0;
}

static struct entry echoed_entry(const struct completion *p, const struct eval_result *r, const struct completion_prompt *prompt, size_t k)
{
    struct entry e = {.id = prompt->ids[k], .scored = k > 0, .first = k == prompt->hidden, .silent = k < prompt->hidden};
    if (k > 0) {
        e.logprob = r->logprobs[k - 1];
        e.top_ids = r->top_ids + (k - 1) * n_alternatives(p);
        e.top_logprobs = r->top_logprobs + (k - 1) * n_alternatives(p);
    }
    return e;
}

static struct entry new_entry(const struct completion *p, const struct eval_result *r, size_t k)
{
    size_t top = k * n_alternatives(p);
    return (struct entry){.id = r->new_tokens[k],
                          .scored = true,
                          .logprob = r->new_logprobs[k],
                          .top_ids = r->new_top_ids + top,
                          .top_logprobs = r->new_top_logprobs + top,
                          .silent = completion_is_silent(p, r->new_tokens[k])};
}

size_t completion_list_length(const struct completion *p, int i, enum completion_list list)
{
    return list == COMPLETION_LIST_PROMPT ? p->choices[i].prompt->n : n_echoed(p, i) + (size_t)p->choices[i].n_new;
}

void completion_open_list(struct writer *w, enum completion_list list)
{
    static const char *const names[COMPLETION_LISTS] = {"tokens", "token_logprobs", "top_logprobs", "text_offset", "prompt_logprobs"};
    writer_key(w, names[list]);
    writer_open(w, '[');
}

void completion_write_entries(struct completion *p, struct writer *w, const struct engine_ticket *t, int i, enum completion_list list,
                              size_t from, size_t to, size_t *chars)
{
    const struct eval_result *r = engine_result(t, i);
    const struct completion_prompt *prompt = p->choices[i].prompt;
    size_t echoed = list == COMPLETION_LIST_PROMPT ? prompt->n : n_echoed(p, i);
    for (size_t k = from; k < to; k++) {
        struct entry e = k < echoed ? echoed_entry(p, r, prompt, k) : new_entry(p, r, k - echoed);
        write_item(p, w, list, &e, chars);
    }
}

void completion_write_logprobs(struct completion *p, struct writer *w, const struct engine_ticket *t, int i, int from, int to,
                               size_t *chars)
{
    size_t before = n_echoed(p, i);
    writer_key(w, "logprobs");
    if (p->logprobs < 0) {
        writer_null(w);
        return;
    }
    writer_open(w, '{');
    for (enum completion_list list = 0; list < COMPLETION_LIST_PROMPT; list++) {
        completion_open_list(w, list);
        completion_write_entries(p, w, t, i, list, before + (size_t)from, before + (size_t)to, chars);
        writer_close(w, ']');
    }
    writer_close(w, '}');
}
