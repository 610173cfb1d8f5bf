/* POST /v1/completions, and the pointer to it from /v1/chat/completions. */
#include "server/api/completion.h"

/* ---- the answer ---- */

struct answer {
    struct call call; /* owned: arena and body */
    struct completion *p;
    struct engine_ticket *ticket;
    struct writer w;
    struct completion_cursor cursor;
    bool begun;
};

static void begin_answer(struct answer *a)
{
    writer_open(&a->w, '{');
    completion_write_head(a->p, &a->w);
    writer_key(&a->w, "choices");
    writer_open(&a->w, '[');
    a->begun = true;
}

static void end_answer(struct answer *a)
{
    writer_close(&a->w, ']');
    completion_write_usage(a->p, &a->w, a->ticket);
    writer_close(&a->w, '}');
}

static bool write_some(void *user)
{
    struct answer *a = user;
    if (!a->begun)
        begin_answer(a);
    if (a->cursor.choice < a->p->n_choices)
        completion_write_some(a->p, &a->w, a->ticket, &a->cursor);
    bool end = a->cursor.choice == a->p->n_choices;
    if (end)
        end_answer(a);
    return end;
}

static int answer_next(void *user, struct buf *out)
{
    return api_write_piece(&((struct answer *)user)->w, out, write_some, user);
}

static void answer_done(void *user)
{
    struct answer *a = user;
    api_free(&a->call, a->ticket, a->p->reqs, a->p->n_choices);
    completion_done(a->p);
    api_drop_call(&a->call);
}

/* The ticket becomes the answer's, and so does `c`. */
static int answer(struct call *c, struct completion *p, struct engine_ticket *t, struct err *err)
{
    struct answer *a = arena_alloc(&c->arena, 1, sizeof(*a));
    if (!a)
        return err_set(err, ERR_NOMEM, "no memory for the answer");
    *a = (struct answer){.p = p, .ticket = t};
    api_take_call(c, &a->call);
    p->call = &a->call;
    c->resp->stream = (struct http_stream){answer_next, answer_done, a};
    return 0;
}

/* ---- the run ---- */

/* Takes tokens as they come, until every sequence is done. */
static int follow(struct completion *p, struct engine_ticket *t, struct progress *progress, struct err *err)
{
    enum progress_event event;
    struct http_request *req = p->call->req;
    if (req)
        http_watch(req, false, progress_client, progress);
    while ((event = progress_wait(progress)) < PROGRESS_GONE)
        for (int i = 0; i < p->n_choices && event == PROGRESS_TOKENS; i++)
            completion_take(p, t, i);
    int r = api_client_error(req ? http_unwatch(req) : WATCH_HERE, err);
    if (event == PROGRESS_FINISHED)
        engine_wait(t, -1);
    return r;
}

/* Stop strings end sequences, so their tokens must be looked at while the engine works. */
static int run_with_stops(struct completion *p, struct engine_ticket **ret, struct err *err)
{
    struct progress progress;
    progress_init(&progress, p->n_choices);
    completion_follow(p, &progress);
    int r = api_submit(p->call, p->reqs, p->n_choices, ret, err);
    if (r >= 0)
        r = follow(p, *ret, &progress, err);
    if (r < 0) { /* nothing may call the progress any more */
        api_free(p->call, *ret, p->reqs, p->n_choices);
        *ret = NULL;
    }
    progress_done(&progress);
    return r;
}

static int run(struct completion *p, struct err *err)
{
    struct engine_ticket *t = NULL;
    int r = completion_has_stops(p) ? run_with_stops(p, &t, err) : api_run(p->call, p->reqs, p->n_choices, "prompt", &t, err);
    for (int i = 0; i < p->n_choices && r >= 0; i++)
        completion_take(p, t, i);
    if (r >= 0)
        r = completion_check(p, t, err);
    if (r >= 0)
        r = answer(p->call, p, t, err);
    if (r < 0)
        api_free(p->call, t, p->reqs, p->n_choices);
    return r;
}

int api_completions(struct call *c, struct err *err)
{
    struct completion *p = arena_alloc(&c->arena, 1, sizeof(*p));
    int r = p ? completion_parse(c, p, err) : err_set(err, ERR_NOMEM, "no memory for the request");
    if (r >= 0 && p->stream)
        return completion_stream(c, p, err);
    if (r >= 0)
        r = run(p, err);
    if (p && r < 0)
        completion_done(p);
    return r;
}

int api_chat_completions(struct call *c, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "chat is not served; these are base models: send a prompt to /v1/completions");
}
