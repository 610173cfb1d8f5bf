/* POST /v1/loglikelihood and /v1/loglikelihood_rolling over HTTP; score.c and rolling.c do the work. */
#include "server/api/api.h"
#include "server/api/rolling.h"
#include "server/api/score.h"

struct answer {
    struct call call; /* owned: arena and body */
    struct score_job job;
    struct score_cursor cursor;
    struct writer w;
};

static bool write_some(void *user)
{
    struct answer *a = user;
    return score_write_some(&a->job, &a->w, &a->cursor);
}

static int answer_next(void *user, struct buf *out)
{
    return api_write_piece(&((struct answer *)user)->w, out, write_some, user);
}

static void answer_done(void *user)
{
    struct answer *a = user;
    api_drop_call(&a->call);
}

int api_loglikelihood(struct call *c, struct err *err)
{
    struct answer *a = arena_alloc(&c->arena, 1, sizeof(*a));
    int r = a ? score_start(c, &a->job, err) : err_set(err, ERR_NOMEM, "no memory for the request");
    if (r >= 0)
        r = score_finish(&a->job, err);
    if (r < 0)
        return r;
    api_take_call(c, &a->call);
    a->job.call = &a->call;
    c->resp->stream = (struct http_stream){answer_next, answer_done, a};
    return 0;
}

int api_loglikelihood_rolling(struct call *c, struct err *err)
{
    return rolling_run(c, err);
}
