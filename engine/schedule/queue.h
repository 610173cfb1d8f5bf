/* All that two kinds of threads share: those that ask (any number) and the one worker that computes. One lock guards it, held for a few instructions
 * at a time: nothing is computed, copied at length or allocated under it. */
#pragma once
#include "engine/engine.h"
#include "engine/schedule/seq_list.h"
#include <pthread.h>

struct engine_ticket;

struct queue {
    pthread_mutex_t lock;  /* the engine's only lock */
    pthread_cond_t wake;   /* the worker: there is something to do */
    pthread_cond_t idle;   /* others: what was asked of the worker is done */
    struct seq_list inbox; /* submitted, not yet taken by the worker */
    bool reuses;           /* what was computed for one sequence serves others; set before the first submission */
    int max_waiting, n_waiting, n_running;
    struct engine_stats stats; /* as last delivered */
    struct err failure;        /* code < 0: the device is lost */
    bool stop, draining;
    bool sweep;                                       /* asked of the worker: look for cancelled tickets */
    uint64_t clears_asked, clears_taken, clears_done; /* of the cache */
};

/* What the worker has to tell. */
struct queue_delivery {
    struct seq_list done;             /* finished sequences; empty afterwards */
    int started;                      /* sequences that left the queue and run */
    int ended_waiting, ended_running; /* of `done`, by where they were */
    bool cleared;                     /* the cache was cleared */
};

/* What the worker is asked. */
struct queue_orders {
    bool stop, sweep, clear;
};

void queue_init(struct queue *q, int max_waiting);
void queue_done(struct queue *q);

/* ---- any thread ---------------------------------------------------------------------------------------------- */
/* All sequences of the ticket or none: ERR_BUSY (a ticket larger than the queue is taken when the queue is empty), ERR_DRAINING, ERR_DEVICE. */
int queue_submit(struct queue *q, struct engine_ticket *t, struct err *err);
/* Would any ticket be refused for want of room? */
bool queue_full(struct queue *q);
/* Marks the ticket; the worker ends its sequences. */
void queue_cancel(struct queue *q, struct engine_ticket *t);
/* True when the ticket is done; waits at most timeout_ms (< 0: for ever). */
bool queue_wait(struct queue *q, struct engine_ticket *t, int timeout_ms);
/* Has the worker clear the cache, and returns when that is done. */
void queue_clear_cache(struct queue *q);
void queue_drain(struct queue *q);
void queue_stop(struct queue *q);
void queue_stats(struct queue *q, struct engine_stats *ret);
int queue_health(struct queue *q, struct err *err); /* 0 or the code of the failure; err may be NULL */

/* ---- the worker ---------------------------------------------------------------------------------------------- */
/* Publishes counts, then hands finished sequences to their tickets, so that who has an answer finds it counted. A ticket may be freed at once. */
void queue_deliver(struct queue *q, struct queue_delivery *d, const struct engine_stats *counts);
/* Moves what was submitted to the end of `into`; if `idle` and nothing was asked, waits for something first. */
struct queue_orders queue_take(struct queue *q, struct seq_list *into, bool idle);
void queue_fail(struct queue *q, const struct err *err);
