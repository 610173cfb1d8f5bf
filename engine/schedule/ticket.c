/* Tickets and their sequences. */
#include "engine/schedule/ticket.h"
#include "engine/schedule/queue.h"
#include <stdlib.h>

static void init_condition(pthread_cond_t *c)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

static bool is_two_passes(const struct eval_request *q)
{
    return q->max_new && q->score_begin < q->n_tokens;
}

/* Divides those that need it into a request that generates, in its place, and one that scores, at the end. */
static int divide(struct engine_ticket *t, const struct eval_request *reqs)
{
    t->part = calloc((size_t)t->n_seqs, sizeof(*t->part));
    t->scores_for = calloc((size_t)(t->n_seqs - t->n), sizeof(*t->scores_for));
    if (!t->part || !t->scores_for)
        return ERR_NOMEM;
    for (int i = 0, extra = 0; i < t->n; i++) {
        t->part[i] = reqs[i];
        if (!is_two_passes(&reqs[i]))
            continue;
        t->part[i].score_begin = reqs[i].n_tokens;
        struct eval_request *scores = &t->part[t->n + extra];
        *scores = reqs[i];
        scores->max_new = 0;
        scores->want_routing = scores->want_probs = false;
        scores->on_token = scores->on_done = NULL;
        t->scores_for[extra++] = i;
    }
    return 0;
}

/* Positions of all sequences; where rows are reused, those that one shares with the one before count once. */
static int64_t count_rows(const struct engine_ticket *t)
{
    int64_t rows = 0;
    for (int i = 0; i < t->n_seqs; i++) {
        const struct eval_request *q = t->seqs[i].req, *last = i ? t->seqs[i - 1].req : NULL;
        int shared = 0, most = last && t->queue && t->queue->reuses ? q->n_tokens - 1 : 0;
        while (shared < most && shared < last->n_tokens && q->tokens[shared] == last->tokens[shared])
            shared++;
        rows += t->seqs[i].table_cap - shared;
    }
    return rows;
}

int ticket_new(struct queue *queue, const struct eval_request *reqs, int n, int n_layers, bool whole_prompts, struct engine_ticket **ret)
{
    struct engine_ticket *t = calloc(1, sizeof(*t));
    if (!t)
        return ERR_NOMEM;
    init_condition(&t->done);
    t->queue = queue;
    t->client_id = reqs[0].client;
    t->call = reqs[0].call;
    t->n = t->n_seqs = n;
    for (int i = 0; whole_prompts && i < n; i++)
        t->n_seqs += is_two_passes(&reqs[i]);
    t->remaining = t->n_seqs;
    int r = t->n_seqs > n ? divide(t, reqs) : 0;
    t->seqs = calloc((size_t)t->n_seqs, sizeof(*t->seqs));
    if (!t->seqs)
        r = ERR_NOMEM;
    for (int i = 0; r >= 0 && i < t->n_seqs; i++)
        r = sequence_prepare(&t->seqs[i], t->part ? &t->part[i] : &reqs[i], n_layers, t);
    if (r < 0) {
        ticket_free(t);
        return r;
    }
    t->rows = count_rows(t);
    *ret = t;
    return r;
}

void ticket_free(struct engine_ticket *t)
{
    for (int i = 0; t->seqs && i < t->n_seqs; i++)
        sequence_release(&t->seqs[i]);
    free(t->seqs);
    free(t->part);
    free(t->scores_for);
    pthread_cond_destroy(&t->done);
    free(t);
}

void ticket_complete(struct engine_ticket *t)
{
    for (int i = t->n; i < t->n_seqs; i++) {
        struct eval_result *r = &t->seqs[t->scores_for[i - t->n]].result;
        const struct eval_result *scores = &t->seqs[i].result;
        if (scores->code < 0 && r->code >= 0) {
            r->code = scores->code;
            r->err = scores->err;
        }
        r->n_scored = scores->n_scored;
        r->logprobs = scores->logprobs;
        r->top_ids = scores->top_ids;
        r->top_logprobs = scores->top_logprobs;
        r->rows_computed += scores->rows_computed;
    }
}
