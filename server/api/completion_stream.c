/* The streamed answer of /v1/completions: server-sent events, one a token, with the text that no later token can take back. The last of a
 * choice has its finish_reason.
 *
 * The connection's thread sleeps until the engine has more tokens (progress.h), takes them and writes events, a bounded piece at a time. The
 * prompt's own scores are known only at the end, so with echo and logprobs all events come then. */
#include "server/api/completion.h"
#include <stdlib.h>

#define TEXT_MAX_BYTES ((size_t)1 << 30)

struct stream_choice {
    int n_sent;        /* tokens whose entries are written */
    size_t sent_bytes; /* of the choice's text */
    size_t chars;      /* offset of the next token */
    bool echoed;
    bool finished; /* its finish_reason was written */
};

struct stream {
    struct call call; /* owned: arena and body */
    struct completion *p;
    struct stream_choice *choices;
    struct engine_ticket *ticket;
    struct progress progress;
    bool whole;   /* with the prompt's scores: nothing is written before the end */
    bool ended;   /* every sequence is done */
    bool pending; /* there may be events to write: */
    int at;       /* those of this choice come next */
    bool inside;  /* the first event of choice `at` is being written, in pieces */
    struct writer w;
    struct completion_cursor cursor;
};

/* ---- events ---- */

static void begin_event(struct stream *s, struct writer *w)
{
    if (w->code >= 0)
        w->code = buf_puts(w->buf, "data: ");
    w->comma = false;
    writer_open(w, '{');
    completion_write_head(s->p, w);
    writer_key(w, "choices");
    writer_open(w, '[');
}

static void end_event(struct writer *w)
{
    writer_close(w, '}');
    if (w->code >= 0)
        w->code = buf_puts(w->buf, "\n\n");
}

/* Behind the one choice that an event has. */
static void close_choices(struct stream *s, struct writer *w)
{
    writer_close(w, ']');
    if (s->p->include_usage) {
        writer_key(w, "usage");
        writer_null(w);
    }
    end_event(w);
}

static int write_text(struct stream *s, struct stream_choice *sc, const struct completion_choice *choice, size_t settled, struct writer *w)
{
    struct buf text;
    buf_init(&text, TEXT_MAX_BYTES);
    int r = s->p->echo && !sc->echoed ? completion_prompt_text(s->p, choice->prompt, &text) : 0;
    for (size_t i = 0; i < text.len; i++)
        sc->chars += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    if (r >= 0)
        r = buf_append(&text, choice->text.text.data + sc->sent_bytes, settled - sc->sent_bytes);
    writer_string(w, text.data, text.len);
    buf_done(&text);
    sc->echoed = true;
    sc->sent_bytes = settled;
    return r;
}

/* Of the tokens taken since the last one. `finish`: the choice's end, or NULL. */
static void write_event(struct stream *s, int i, const char *finish, struct writer *w)
{
    struct stream_choice *sc = &s->choices[i];
    struct completion_choice *choice = &s->p->choices[i];
    begin_event(s, w);
    writer_open(w, '{');
    writer_key_int(w, "index", i);
    writer_key(w, "text");
    int r = write_text(s, sc, choice, stop_text_settled(&choice->text, finish != NULL), w);
    w->code = w->code < 0 ? w->code : r;
    completion_write_logprobs(s->p, w, s->ticket, i, sc->n_sent, choice->n_new, &sc->chars);
    sc->n_sent = choice->n_new;
    sc->finished = finish != NULL;
    writer_key_text(w, "finish_reason", finish);
    writer_close(w, '}');
    close_choices(s, w);
}

/* A choice's first event with the prompt's scores, which may be larger than memory for an answer: some more of it. */
static void write_first(struct stream *s, struct writer *w)
{
    struct stream_choice *sc = &s->choices[s->at];
    struct completion_choice *choice = &s->p->choices[s->at];
    if (!s->inside) {
        completion_take_one(s->p, s->ticket, s->at);
        begin_event(s, w);
        s->cursor = (struct completion_cursor){.choice = s->at};
        s->inside = true;
    }
    if (!completion_write_some(s->p, w, s->ticket, &s->cursor)) {
        sc->chars = s->cursor.chars;
        return;
    }
    close_choices(s, w);
    s->inside = false;
    sc->echoed = true;
    sc->n_sent = choice->n_new;
    sc->finished = completion_finish(s->p, s->at, s->p->max_tokens == 0) != NULL;
    sc->sent_bytes = stop_text_settled(&choice->text, sc->finished);
}

/* Events of choice `at`. True when all that are known are written. */
static bool write_choice(struct stream *s, struct writer *w)
{
    struct stream_choice *sc = &s->choices[s->at];
    while (w->buf->len < API_PIECE && w->code >= 0) {
        if (s->whole && !sc->echoed)
            write_first(s, w);
        else if (completion_take_one(s->p, s->ticket, s->at))
            write_event(s, s->at, completion_finish(s->p, s->at, false), w);
        else
            return true;
    }
    return false;
}

/* A choice without tokens has its reason for the end alone. */
static bool write_reason(struct stream *s, struct writer *w)
{
    if (!s->choices[s->at].finished)
        write_event(s, s->at, completion_finish(s->p, s->at, true), w);
    return w->buf->len < API_PIECE && w->code >= 0;
}

/* Does it for every choice from `at` on; false: there is more. */
static bool write_each(struct stream *s, bool (*write)(struct stream *s, struct writer *w), struct writer *w)
{
    while (s->at < s->p->n_choices && write(s, w))
        s->at++;
    if (s->at < s->p->n_choices)
        return false;
    s->at = 0;
    return true;
}

static int write_failure(const struct err *err, struct buf *out)
{
    int r = buf_puts(out, "data: ");
    if (r >= 0)
        r = api_write_error(out, err);
    if (r >= 0)
        r = buf_puts(out, "\n\ndata: [DONE]\n\n");
    return r;
}

/* The usage counts into the metrics also when the client does not want to see it. */
static void write_usage(struct stream *s, struct writer *w)
{
    struct buf unseen;
    buf_init(&unseen, 4096);
    struct writer u = writer_on(&unseen);
    if (s->p->include_usage) {
        begin_event(s, w);
        writer_close(w, ']');
        completion_write_usage(s->p, w, s->ticket);
        end_event(w);
    } else {
        completion_write_usage(s->p, &u, s->ticket);
        w->code = w->code < 0 ? w->code : u.code;
    }
    buf_done(&unseen);
}

/* What a stream that ends early says, to its client and to the log. */
static int fail(struct stream *s, const struct err *err, struct buf *out)
{
    log_write(s->call.server->log, err->code == ERR_CANCELLED ? LOG_INFO : LOG_ERROR, api_request_id(&s->call),
              "the stream ended early: %s", err->text);
    return err->code == ERR_CANCELLED ? err->code : write_failure(err, out);
}

/* Every sequence is done. A prompt's scores are read only where it has some. */
static int begin_end(struct stream *s, struct err *err)
{
    engine_wait(s->ticket, -1);
    s->ended = true;
    for (int i = 0; i < s->p->n_choices && s->whole; i++)
        if (engine_result(s->ticket, i)->code < 0)
            completion_take(s->p, s->ticket, i);
    return s->whole ? completion_check(s->p, s->ticket, err) : 0;
}

/* 1: there is more; 0: this was the end. */
static int write_end(struct stream *s, struct writer *w)
{
    struct err err = {0};
    if (completion_check(s->p, s->ticket, &err) < 0)
        return fail(s, &err, w->buf);
    if (!write_each(s, write_reason, w))
        return w->code < 0 ? w->code : 1;
    write_usage(s, w);
    int r = w->code < 0 ? w->code : buf_puts(w->buf, "data: [DONE]\n\n");
    return r < 0 ? r : 0;
}

/* Waits for news. 1: go on; else what stream_next returns. */
static int take_news(struct stream *s, struct buf *out)
{
    struct err err = {0};
    int r = 1;
    switch (progress_wait(&s->progress)) {
    case PROGRESS_FINISHED: s->pending = true; return begin_end(s, &err) < 0 ? fail(s, &err, out) : 1;
    case PROGRESS_GONE: api_client_error(s->progress.client, &err); return fail(s, &err, out);
    case PROGRESS_HALF: r = buf_puts(out, ":\n\n"); break; /* a comment: who has left resets the connection then */
    case PROGRESS_TOKENS: s->pending = !s->whole; break;
    }
    return r < 0 ? r : 1;
}

static int stream_next(void *user, struct buf *out)
{
    struct stream *s = user;
    int r = 1;
    s->w.buf = out;
    while ((!out->len || s->ended) && out->len < API_PIECE && r > 0) {
        if (s->pending)
            s->pending = !write_each(s, write_choice, &s->w);
        else
            r = s->ended ? write_end(s, &s->w) : take_news(s, out);
        if (s->w.code < 0)
            return -1;
    }
    return r < 0 ? -1 : r;
}

static void stream_done(void *user)
{
    struct stream *s = user;
    if (s->call.req && s->ticket)
        http_unwatch(s->call.req);
    api_free(&s->call, s->ticket, s->p->reqs, s->p->n_choices);
    progress_done(&s->progress);
    completion_done(s->p);
    api_drop_call(&s->call);
}

int completion_stream(struct call *c, struct completion *p, struct err *err)
{
    struct stream *s = arena_alloc(&c->arena, 1, sizeof(*s));
    struct stream_choice *choices = arena_alloc(&c->arena, (size_t)p->n_choices, sizeof(*choices));
    int r = s && choices ? 0 : err_set(err, ERR_NOMEM, "no memory for the stream");
    if (r < 0) {
        completion_done(p);
        return r;
    }
    *s = (struct stream){.p = p, .choices = choices, .whole = p->echo && p->logprobs >= 0};
    progress_init(&s->progress, p->n_choices);
    completion_follow(p, &s->progress);
    api_take_call(c, &s->call);
    p->call = &s->call;
    r = api_submit(p->call, p->reqs, p->n_choices, &s->ticket, err);
    if (r < 0) {
        stream_done(s);
        return r;
    }
    if (s->call.req)
        http_watch(s->call.req, true, progress_client, &s->progress);
    c->resp->content_type = "text/event-stream";
    c->resp->events = true;
    c->resp->stream = (struct http_stream){stream_next, stream_done, s};
    return 0;
}
