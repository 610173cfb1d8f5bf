/* The loglikelihood endpoints without their transport: `dtrnet score` runs the same code as HTTP.
 *
 * A job is started (parsed, checked, queued) and finished (waited for, written) in two steps, so that a caller may keep many
 * in the engine at once. Everything lies in the call's arena; the call must outlive the job. */
#pragma once
#include "server/api/api.h"

#define SCORE_MAX_CONTINUATIONS 4096

/* One (context, continuation). */
struct score_pair {
    int32_t *tokens; /* [n] what is sent: context and continuation, cut on the left */
    int n, n_continuation, truncated;
};

struct score_job {
    struct call *call;
    size_t n_requests;
    int *n_continuations;      /* [n_requests] */
    struct score_pair *pairs;  /* [n_pairs], in the order of the requests */
    struct eval_request *reqs; /* [n_pairs] */
    int n_pairs;
    int max_length; /* input positions of a sequence */
    bool add_bos, truncate, routing, tokens;
    struct engine_ticket *ticket;
};

/* POST /v1/loglikelihood: parses c->body and submits it. On error nothing is left running. */
int score_start(struct call *c, struct score_job *ret, struct err *err);
/* Waits, appends the answer to c->resp->body, frees the ticket (on errors too). */
int score_finish(struct score_job *job, struct err *err);
/* Waits for nothing: cancels and frees a started job. */
void score_cancel(struct score_job *job);

/* Appends the answer of a job whose sequences have ended to its call's body. */
int score_write(struct score_job *job, struct err *err);

/* Tokens of an answer's "usage". */
struct score_counts {
    int64_t prompt, scored; /* tokens sent; tokens that got a logprob */
};

/* What both loglikelihood answers begin and end with: ret_w writes to the call's body and is left open for the endpoint's own fields;
 * closing adds "usage" over the n sequences of a ticket. */
void score_open_answer(struct call *c, struct writer *ret_w, const char *object);
int score_close_answer(struct call *c, struct writer *w, const struct engine_ticket *t, int n, struct score_counts counts, struct err *err);
/* max_length of a request body: 1 to the model's limit, which is the default. */
int score_max_length(struct call *c, int *ret, struct err *err);
