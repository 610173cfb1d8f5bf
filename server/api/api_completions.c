/* POST /v1/completions, and the pointer to it from /v1/chat/completions. */
#include "server/api/completion.h"
#include "server/api/progress.h"

static int write_answer(struct completion *p, const struct engine_ticket *t, struct err *err)
{
    struct writer w = writer_on(&p->call->resp->body);
    writer_open(&w, '{');
    completion_write_head(p, &w);
    writer_key(&w, "choices");
    writer_open(&w, '[');
    for (int i = 0; i < p->n_choices; i++)
        completion_write_choice(p, &w, t, i);
    writer_close(&w, ']');
    completion_write_usage(p, &w, t);
    writer_close(&w, '}');
    return w.code < 0 ? err_set(err, w.code, "the answer is too large") : 0;
}

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
    for (int i = 0; i < p->n_choices; i++) {
        p->reqs[i].on_token = progress_token;
        p->reqs[i].on_done = progress_end;
        p->reqs[i].user = &progress;
    }
    int r = api_submit(p->call, p->reqs, p->n_choices, ret, err);
    if (r >= 0)
        r = follow(p, *ret, &progress, err);
    if (r < 0) { /* nothing may call the progress any more */
        engine_ticket_free(*ret);
        *ret = NULL;
    }
    progress_done(&progress);
    return r;
}

static int run(struct completion *p, struct err *err)
{
    struct engine_ticket *t = NULL;
    int r = p->stop.n ? run_with_stops(p, &t, err) : api_run(p->call, p->reqs, p->n_choices, "prompt", &t, err);
    for (int i = 0; i < p->n_choices && r >= 0; i++)
        completion_take(p, t, i);
    if (r >= 0)
        r = completion_check(p, t, err);
    if (r >= 0)
        r = write_answer(p, t, err);
    engine_ticket_free(t);
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
    if (p)
        completion_done(p);
    return r;
}

int api_chat_completions(struct call *c, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "chat is not served; these are base models: send a prompt to /v1/completions");
}
