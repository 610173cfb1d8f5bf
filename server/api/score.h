/* The loglikelihood endpoints without their transport: `dtrnet score` runs the same code as HTTP.
 *
 * A job is started (parsed, checked, its first waves queued) and finished (waited for, collected) in two steps, so that a caller may keep
 * many in the engine at once. Everything lies in the call's arena; the call must outlive the job.
 *
 * Pairs of one context share its ids; the sequences that the engine wants are put together a wave at a time, and only what the answer
 * needs is kept of their results. */
#pragma once
#include "server/api/api.h"

#define SCORE_MAX_CONTINUATIONS 4096
#define SCORE_WAVES 2               /* in the engine at once */
#define SCORE_WAVE_PAIRS 4096       /* of one wave at most */
#define SCORE_WAVE_TOKENS (1 << 20) /* a wave ends with the pair that reaches it */

/* One (context, continuation), cut on the left: front, context and continuation are what is sent. */
struct score_pair {
    const int32_t *context, *continuation;
    int n_context, n_continuation, truncated;
    int32_t front; /* before the context; -1: nothing */
    /* the result */
    bool greedy;
    int n_routing;
    double logprob;
    float *logprobs;  /* [n_continuation]; NULL unless asked for */
    uint8_t *routing; /* [n_layers, n_routing] enum decision in 2 bits each, low ones first; NULL unless asked for */
};

/* Consecutive pairs in the engine. */
struct score_wave {
    int first, n; /* n 0: none */
    int32_t *tokens;
    struct eval_request *reqs; /* [n] */
    size_t bytes;              /* charged for both */
    struct engine_ticket *ticket;
};

struct score_job {
    struct call *call;
    size_t n_requests;
    int *n_continuations;     /* [n_requests] */
    struct score_pair *pairs; /* [n_pairs], in the order of the requests */
    int n_pairs;
    int max_length; /* input positions of a sequence */
    bool add_bos, truncate, routing, tokens;
    struct score_wave waves[SCORE_WAVES]; /* oldest first */
    int n_waves, n_sent;                  /* pairs that are or were in a wave */
    struct api_usage usage;
};

/* POST /v1/loglikelihood: parses c->body and submits the first waves. On error nothing is left running. */
int score_start(struct call *c, struct score_job *ret, struct err *err);
/* Waits for all; the pairs then have their results. On error nothing is left running. */
int score_finish(struct score_job *job, struct err *err);
/* Waits for nothing: cancels and frees what runs. */
void score_cancel(struct score_job *job);

/* score_waves.c: fills the engine with the next pairs, and takes the oldest wave out. */
int score_waves_send(struct score_job *job, struct err *err);
int score_waves_take(struct score_job *job, struct err *err);

/* Where the writing of a job's answer stands. */
struct score_cursor {
    size_t request;
    int continuation, pair;
    bool begun;
};
/* Appends some more of the answer of a finished job. True at its end. */
bool score_write_some(struct score_job *job, struct writer *w, struct score_cursor *c);

/* Tokens of an answer's "usage". */
struct score_counts {
    int64_t prompt, scored; /* tokens sent; tokens that got a logprob */
};

/* What both loglikelihood answers begin and end with: the object is left open for the endpoint's own fields; closing adds "usage". */
void score_open_answer(struct call *c, struct writer *w, const char *object);
void score_close_answer(struct call *c, struct writer *w, const struct api_usage *usage, struct score_counts counts);
/* max_length of a request body: 1 to the model's limit, which is the default. */
int score_max_length(struct call *c, int *ret, struct err *err);
