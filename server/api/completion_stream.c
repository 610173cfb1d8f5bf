/* The streamed answer of /v1/completions: server-sent events, one for each piece of text that no later token can take back.
 *
 * The connection's thread sleeps until the engine has more tokens (progress.h), takes them and writes events. The prompt's own scores are
 * known only at the end, so with echo and logprobs everything comes in one event a choice. */
#include "server/api/completion.h"
#include "server/api/progress.h"
#include <stdlib.h>

#define TEXT_MAX_BYTES ((size_t)1 << 30)

struct stream_choice {
    int n_sent;        /* tokens whose entries are written */
    size_t sent_bytes; /* of the choice's text */
    size_t chars;      /* offset of the next token */
    bool echoed;
};

struct stream {
    struct call call; /* owned: arena and body */
    struct completion *p;
    struct stream_choice *choices;
    struct engine_ticket *ticket;
    struct progress progress;
    bool whole; /* one event a choice, at the end */
    /* the end, which is written in pieces */
    bool ended;
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

/* Nothing if there is nothing new. `finish`: the sequence's end, or NULL while it runs. */
static void write_event(struct stream *s, int i, const char *finish, struct writer *w)
{
    struct stream_choice *sc = &s->choices[i];
    struct completion_choice *choice = &s->p->choices[i];
    size_t settled = stop_text_settled(&choice->text, finish != NULL);
    bool entries = s->p->logprobs >= 0 && choice->n_new > sc->n_sent;
    if (!finish && settled == sc->sent_bytes && !entries && (sc->echoed || !s->p->echo))
        return;
    begin_event(s, w);
    writer_open(w, '{');
    writer_key_int(w, "index", i);
    writer_key(w, "text");
    int r = write_text(s, sc, choice, settled, w);
    w->code = w->code < 0 ? w->code : r;
    completion_write_logprobs(s->p, w, s->ticket, i, sc->n_sent, choice->n_new, &sc->chars);
    sc->n_sent = choice->n_new;
    writer_key_text(w, "finish_reason", finish);
    writer_close(w, '}');
    writer_close(w, ']');
    if (s->p->include_usage) {
        writer_key(w, "usage");
        writer_null(w);
    }
    end_event(w);
}

/* Some more of the last events of all choices. */
static void write_last(struct stream *s, struct writer *w)
{
    struct completion_cursor *c = &s->cursor;
    if (!s->whole) {
        write_event(s, c->choice, completion_finish(s->p, s->ticket, c->choice), w);
        c->choice++;
        return;
    }
    if (!c->begun)
        begin_event(s, w);
    if (completion_write_some(s->p, w, s->ticket, c)) {
        writer_close(w, ']');
        end_event(w);
    }
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

/* Every sequence is done: what the answer is, or why there is none. */
static int begin_end(struct stream *s, struct err *err)
{
    engine_wait(s->ticket, -1);
    for (int i = 0; i < s->p->n_choices; i++)
        completion_take(s->p, s->ticket, i);
    s->ended = true;
    return completion_check(s->p, s->ticket, err);
}

/* 1: there is more; 0: this was the end. */
static int write_end(struct stream *s, struct buf *out)
{
    size_t begin = out->len;
    s->w.buf = out;
    while (s->cursor.choice < s->p->n_choices && s->w.code >= 0 && out->len - begin < API_PIECE)
        write_last(s, &s->w);
    if (s->w.code < 0 || s->cursor.choice < s->p->n_choices)
        return s->w.code < 0 ? s->w.code : 1;
    write_usage(s, &s->w);
    int r = s->w.code < 0 ? s->w.code : buf_puts(out, "data: [DONE]\n\n");
    return r < 0 ? r : 0;
}

static void write_news(struct stream *s, struct writer *w)
{
    for (int i = 0; i < s->p->n_choices; i++) {
        completion_take(s->p, s->ticket, i);
        if (!s->whole)
            write_event(s, i, NULL, w);
    }
}

static int stream_next(void *user, struct buf *out)
{
    struct stream *s = user;
    struct writer w = writer_on(out);
    struct err err = {0};
    while (!out->len && w.code >= 0 && !s->ended) {
        switch (progress_wait(&s->progress)) {
        case PROGRESS_FINISHED:
            if (begin_end(s, &err) < 0)
                return fail(s, &err, out) < 0 ? -1 : 0;
            break;
        case PROGRESS_GONE: api_client_error(s->progress.client, &err); return fail(s, &err, out) < 0 ? -1 : 0;
        case PROGRESS_HALF: w.code = buf_puts(out, ":\n\n"); break; /* a comment: who has left resets the connection then */
        case PROGRESS_TOKENS: write_news(s, &w); break;
        }
    }
    return w.code < 0 ? -1 : s->ended ? write_end(s, out) : 1;
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
    for (int i = 0; i < p->n_choices; i++) {
        p->reqs[i].on_token = progress_token;
        p->reqs[i].on_done = progress_end;
        p->reqs[i].user = &s->progress;
    }
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
