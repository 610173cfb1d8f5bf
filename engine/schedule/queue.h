/* All that two kinds of threads share: those that ask (any number) and the workers that compute, one a device. One lock guards it, held for a few
 * instructions at a time: nothing is computed, copied at length or allocated under it.
 *
 * There is one limit on what waits, and one count of it. A sequence is sent to a device when it is submitted (dispatch.h), and to another one when
 * that one is lost. */
#pragma once
#include "engine/engine.h"
#include "engine/schedule/seq_list.h"
#include <pthread.h>
#include <stdatomic.h>

struct dispatch;
struct engine_ticket;

/* What a device's worker and the others share. */
struct queue_device {
    pthread_cond_t wake;   /* its worker: there is something to do */
    struct seq_list inbox; /* sent to it, not yet taken by its worker */
    _Atomic int64_t load;  /* rows that its sequences will compute, about; written under the lock, read without it */
    atomic_bool lost;      /* likewise; `failure` says why */
    int n_waiting, n_running;
    struct engine_stats stats; /* as last delivered */
    struct err failure;
    bool sweep;                         /* asked of the worker: look for cancelled tickets */
    bool woken;                         /* likewise: what else it waits for is there */
    uint64_t clears_taken, clears_done; /* of the cache */
};

struct queue {
    pthread_mutex_t lock;      /* the engine's only lock */
    pthread_cond_t idle;       /* others: what was asked of the workers is done */
    struct dispatch *dispatch; /* borrowed; who says where sequences go. NULL: there is one device */
    bool reuses;               /* what was computed for one sequence serves others; set before the first submission */
    int max_waiting;
    bool stop, draining;
    uint64_t clears_asked;
    int last_lost;
    int n_devices;
    struct queue_device dev[ENGINE_DEVICES_MAX];
};

/* What a worker has to tell. */
struct queue_delivery {
    struct seq_list done;             /* finished sequences; empty afterwards */
    int started;                      /* sequences that left the queue and run */
    int ended_waiting, ended_running; /* of `done`, by where they were */
    bool cleared;                     /* the cache was cleared */
};

/* What a worker is asked. */
struct queue_orders {
    bool stop, sweep, clear;
};

void queue_init(struct queue *q, int n_devices, int max_waiting);
void queue_done(struct queue *q);

/* ---- any thread ---------------------------------------------------------------------------------------------- */
/* All sequences of the ticket or none: ERR_BUSY (a ticket larger than the queue is taken when the queue is empty), ERR_DRAINING, ERR_DEVICE (no device
 * is left). */
int queue_submit(struct queue *q, struct engine_ticket *t, struct err *err);
/* Would any ticket be refused for want of room? */
bool queue_full(struct queue *q);
/* Marks the ticket; the workers end its sequences. */
void queue_cancel(struct queue *q, struct engine_ticket *t);
/* True when the ticket is done; waits at most timeout_ms (< 0: for ever). */
bool queue_wait(struct queue *q, struct engine_ticket *t, int timeout_ms);
/* Has the workers clear their caches, and returns when that is done. */
void queue_clear_cache(struct queue *q);
void queue_drain(struct queue *q);
void queue_stop(struct queue *q);
/* Of one device, and of all together. */
void queue_device_stats(struct queue *q, int device, struct engine_stats *ret);
void queue_stats(struct queue *q, struct engine_stats *ret);
/* 0 or the code of the failure; err may be NULL. queue_health: of the device that was lost last, once all are. */
int queue_device_health(struct queue *q, int device, struct err *err);
int queue_health(struct queue *q, struct err *err);

/* ---- the worker of a device ---------------------------------------------------------------------------------- */
/* Publishes counts, then hands finished sequences to their tickets, so that who has an answer finds it counted. A ticket may be freed at once. */
void queue_deliver(struct queue *q, int device, struct queue_delivery *d, const struct engine_stats *counts);
/* Moves what was sent to the device to the end of `into`; if `idle` and nothing was asked, waits for something first, or for queue_wake. */
struct queue_orders queue_take(struct queue *q, int device, struct seq_list *into, bool idle);
/* Is there anything for queue_take? */
bool queue_calls(struct queue *q, int device);
/* Any thread: the worker does not sleep in its next queue_take. */
void queue_wake(struct queue *q, int device);
/* The device is lost: nothing is sent to it any more. */
void queue_fail(struct queue *q, int device, const struct err *err);
/* Sends the sequences of `list`, which the device's worker had, to others; n_running of them ran. False: there is none, or the queue stops, and the
 * list is as it was. */
bool queue_move(struct queue *q, int device, struct seq_list *list, int n_running);
