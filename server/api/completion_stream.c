/* The streamed answer of /v1/completions: server-sent events, one for each piece of text that no later token can take back.
 *
 * The engine's thread appends tokens to each choice's queue under the stream's lock; the connection's thread takes them and
 * writes events. The prompt's own scores are known only at the end, so with echo and logprobs everything comes in one event a choice. */
#include "server/api/completion.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define POLL_MS 25
#define QUEUE_MAX_BYTES ((size_t)1 << 30)

struct token_record {
    int32_t id;
    float logprob;
    int32_t top_ids[ENGINE_TOP_K_MAX];
    float top_logprobs[ENGINE_TOP_K_MAX];
};

struct stream_choice {
    struct stream *stream;
    int index;
    struct buf queue;  /* struct token_record; not yet written */
    size_t sent_bytes; /* of the choice's text */
    size_t chars;      /* offset of the next token */
    bool echoed;
};

struct stream {
    struct call call; /* owned: arena and body */
    struct completion *p;
    struct stream_choice *choices;
    struct engine_ticket *ticket;
    pthread_mutex_t lock; /* queues and texts of the choices */
    pthread_cond_t arrived;
    bool pending;
    bool whole; /* one event a choice, at the end */
};

/* On the engine's thread. */
static bool on_token(void *user, const struct eval_token *t)
{
    struct stream_choice *sc = user;
    struct stream *s = sc->stream;
    struct completion_choice *choice = &s->p->choices[sc->index];
    struct token_record rec = {.id = t->id, .logprob = t->logprob};
    int k = s->p->logprobs > 1 ? s->p->logprobs : 1;
    size_t len;
    memcpy(rec.top_ids, t->top_ids, (size_t)k * sizeof(rec.top_ids[0]));
    memcpy(rec.top_logprobs, t->top_logprobs, (size_t)k * sizeof(rec.top_logprobs[0]));
    const char *text = completion_token_text(s->p, t->id, &len);
    pthread_mutex_lock(&s->lock);
    int r = s->p->logprobs >= 0 ? buf_append(&sc->queue, &rec, sizeof(rec)) : 0;
    if (r >= 0)
        r = stop_text_add(&choice->text, text, len);
    if (r < 0)
        choice->code = r;
    s->pending = true;
    pthread_cond_signal(&s->arrived);
    pthread_mutex_unlock(&s->lock);
    return r != 0;
}

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

static void write_records(struct stream *s, struct stream_choice *sc, struct writer *w)
{
    const struct token_record *rec = (const void *)sc->queue.data;
    size_t n = sc->queue.len / sizeof(*rec);
    struct completion_entry *e = calloc(n ? n : 1, sizeof(*e));
    w->code = e ? w->code : ERR_NOMEM;
    for (size_t i = 0; i < n && e; i++)
        e[i] = (struct completion_entry){.id = rec[i].id,
                                         .logprob = rec[i].logprob,
                                         .scored = true,
                                         .top_ids = rec[i].top_ids,
                                         .top_logprobs = rec[i].top_logprobs,
                                         .silent = model_config_is_eos(s->call.server->info->config, rec[i].id) && !s->p->ignore_eos};
    if (e)
        completion_write_logprobs(s->p, w, e, n, &sc->chars);
    free(e);
    buf_clear(&sc->queue);
}

static int write_text(struct stream *s, struct stream_choice *sc, const struct completion_choice *choice, size_t settled, struct writer *w)
{
    struct buf text;
    buf_init(&text, QUEUE_MAX_BYTES);
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

/* Under the lock. `finish`: the sequence's end, or NULL while it runs. */
static void write_event(struct stream *s, int i, const char *finish, struct writer *w)
{
    struct stream_choice *sc = &s->choices[i];
    const struct completion_choice *choice = &s->p->choices[i];
    size_t settled = stop_text_settled(&choice->text, finish != NULL);
    if (!finish && settled == sc->sent_bytes && !sc->queue.len && (sc->echoed || !s->p->echo))
        return;
    begin_event(s, w);
    writer_open(w, '{');
    writer_key_int(w, "index", i);
    writer_key(w, "text");
    int r = write_text(s, sc, choice, settled, w);
    w->code = w->code < 0 ? w->code : r;
    write_records(s, sc, w);
    writer_key_text(w, "finish_reason", finish);
    writer_close(w, '}');
    writer_close(w, ']');
    if (s->p->include_usage) {
        writer_key(w, "usage");
        writer_null(w);
    }
    end_event(w);
}

static void write_whole(struct stream *s, int i, struct writer *w)
{
    begin_event(s, w);
    completion_write_choice(s->p, w, i, engine_result(s->ticket, i));
    writer_close(w, ']');
    end_event(w);
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

static int write_end(struct stream *s, struct buf *out)
{
    struct writer w = writer_on(out);
    struct err err = {0};
    int r = api_wait(&s->call, s->ticket, s->p->n_choices, "prompt", &err);
    for (int i = 0; i < s->p->n_choices && r >= 0; i++)
        if (s->p->choices[i].code < 0)
            r = err_set(&err, s->p->choices[i].code, "no memory for the text of choice %d", i);
    if (r < 0) {
        log_write(s->call.server->log, LOG_ERROR, api_request_id(&s->call), "the stream failed: %s", err.text);
        return r == ERR_CANCELLED ? r : write_failure(&err, out);
    }
    for (int i = 0; i < s->p->n_choices; i++)
        if (s->whole)
            write_whole(s, i, &w);
        else
            write_event(s, i, completion_finish_name(engine_result(s->ticket, i)->finish), &w);
    struct buf usage; /* counts into the metrics also when the client does not want to see it */
    buf_init(&usage, 4096);
    struct writer u = s->p->include_usage ? w : writer_on(&usage);
    if (s->p->include_usage) {
        begin_event(s, &u);
        writer_close(&u, ']');
    }
    completion_write_usage(s->p, &u, s->ticket);
    if (s->p->include_usage)
        end_event(&u);
    buf_done(&usage);
    r = u.code < 0 ? u.code : w.code;
    return r < 0 ? r : buf_puts(out, "data: [DONE]\n\n");
}

/* Sleeps until a token arrived, the ticket is done or POLL_MS passed. */
static void wait_for_token(struct stream *s)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += POLL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    if (!s->pending)
        pthread_cond_timedwait(&s->arrived, &s->lock, &until);
}

static int stream_next(void *user, struct buf *out)
{
    struct stream *s = user;
    struct writer w = writer_on(out);
    while (!out->len && w.code >= 0) {
        if (engine_wait(s->ticket, 0))
            return write_end(s, out) < 0 ? -1 : 0;
        if ((s->call.req && http_client_gone(s->call.req)) || atomic_load(&s->call.server->abandon))
            return -1;
        pthread_mutex_lock(&s->lock);
        wait_for_token(s);
        for (int i = 0; i < s->p->n_choices && s->pending && !s->whole; i++)
            write_event(s, i, NULL, &w);
        s->pending = false;
        pthread_mutex_unlock(&s->lock);
    }
    return w.code < 0 ? -1 : 1;
}

static void stream_done(void *user)
{
    struct stream *s = user;
    engine_ticket_free(s->ticket);
    for (int i = 0; i < s->p->n_choices; i++)
        buf_done(&s->choices[i].queue);
    completion_done(s->p);
    pthread_cond_destroy(&s->arrived);
    pthread_mutex_destroy(&s->lock);
    json_decref(s->call.body);
    struct arena arena = s->call.arena; /* s itself lies in it */
    arena_done(&arena);
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
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->arrived, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    for (int i = 0; i < p->n_choices; i++) {
        choices[i] = (struct stream_choice){.stream = s, .index = i};
        buf_init(&choices[i].queue, QUEUE_MAX_BYTES);
        p->reqs[i].on_token = on_token;
        p->reqs[i].user = &choices[i];
    }
    /* From here on the stream owns the request: the handler's call is left empty. */
    s->call = *c;
    s->call.resp = NULL;
    p->call = &s->call;
    r = engine_submit(c->server->engine, p->reqs, p->n_choices, &s->ticket, err);
    arena_init(&c->arena, 0);
    c->body = NULL;
    if (r < 0) {
        stream_done(s);
        return r;
    }
    c->resp->content_type = "text/event-stream";
    c->resp->stream = (struct http_stream){stream_next, stream_done, s};
    return 0;
}
