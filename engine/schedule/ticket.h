/* A group of requests that is queued, answered and cancelled as one.
 *
 * Where selectors see the whole sequence, a request that scores its tokens and goes on from them is two sequences: scores come from a pass over all
 * tokens but the last, the first generated token from a pass over all of them. The result puts the two together. */
#pragma once
#include "engine/engine.h"
#include "engine/schedule/flow.h"
#include <pthread.h>
#include <stdatomic.h>

struct queue;

/* What a ticket is on one device: its sequences may be on several. The device's worker has it to itself, but for what the queue fills in. */
struct ticket_place {
    bool used;             /* a sequence of it was sent here; under queue->lock */
    uint64_t submitted_at; /* steps that had been launched, as far as the queue knew, when the first came; under queue->lock until then */
    struct client *client;
    struct flow *flow; /* NULL: no sequence of it is here */
    enum lane lane;
    int n;             /* sequences that are here */
    uint64_t began_at; /* the step that had its first row, counted from 1; 0: none yet */
};

struct engine_ticket {
    struct queue *queue;
    uint64_t client_id, call; /* whose it is, and of which call; the first request's */
    int64_t rows;             /* that it would compute alone, about */
    struct ticket_place places[ENGINE_DEVICES_MAX];
    int n;                     /* requests */
    int n_seqs;                /* sequences; the first n are the requests', the others score for some of them */
    struct sequence *seqs;     /* [n_seqs] */
    struct eval_request *part; /* [n_seqs] requests of sequences that are half of one; NULL: none are */
    int *scores_for;           /* [n_seqs - n] */
    int remaining;             /* sequences that are not done; under queue->lock */
    atomic_bool cancelled;
    pthread_cond_t done; /* with queue->lock */
};

/* reqs: borrowed until the ticket is freed. ERR_NOMEM. */
int ticket_new(struct queue *queue, const struct eval_request *reqs, int n, int n_layers, bool whole_prompts, struct engine_ticket **ret);
void ticket_free(struct engine_ticket *t); /* done, or never queued */
/* Puts results together; once, when every sequence is done. */
void ticket_complete(struct engine_ticket *t);
