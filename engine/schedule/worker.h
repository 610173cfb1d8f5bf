/* The one thread that decides for a device: takes sequences from the queue, has the policy admit them and share out steps, launches steps on the
 * executor, takes in their results and hands finished sequences back. If the device fails, it sends all that it had to the other devices.
 *
 * While the device computes a step the worker launches the next one, of sequences that are not in flight and of those whose next row can follow that
 * step's (step_rows.h), and then takes in the results of the first. Less than half a step waits for sequences that the step in flight will bring back and
 * that cannot follow it, or for those that wait for its rows: generating ones above all are best computed together.
 *
 * Tokens are drawn beside the steps. A sequence whose token is being drawn sits out; steps of the others go on. Sequences that draw wait for one another
 * where nobody else has rows due, for the same reason. If there is nothing else to do, the worker draws tokens itself, one at a time. */
#pragma once
#include "common/log.h"
#include "engine/schedule/commit.h"
#include "engine/schedule/policy.h"
#include "engine/schedule/queue.h"
#include <pthread.h>

#define WORKER_STATE_EVERY 64 /* positions between copies of router states that the tree keeps */
#define WORKER_LOSSES_MAX 2   /* a sequence in the steps of so many devices that failed may be why they did, and is tried on no other */

struct worker_options {
    int device; /* which of the queue's */
    int number; /* what the log calls it */
    bool prefix_cache;
    size_t tree_bytes;      /* host memory of the prefix tree */
    const int32_t *eos_ids; /* [n_eos] borrowed */
    int n_eos;
    struct log *log; /* borrowed; NULL: silent */
};

struct worker {
    struct executor *x;  /* borrowed */
    struct queue *queue; /* borrowed */
    int device, number;
    struct log *log;
    struct policy policy;
    struct slots kv, states;
    struct extents tables, kept_tables;
    struct route_bits bits;
    struct tree tree;
    struct commit commit;
    struct sequence_env env;
    struct step steps[EXECUTOR_STEPS_MAX];
    uint64_t n_launched;
    int n_drawing; /* sequences whose step is over and whose token is not told yet */
    bool waits;    /* there is nothing to do until tokens are drawn, which others do, or something comes */
    struct engine_stats counts;
    struct queue_delivery delivery; /* not yet told to the queue */
    bool lost;                      /* the device; `failure` says why */
    struct err failure;
    bool started;
    pthread_t thread;
};

/* Everything but the thread; then worker_turn may be called from one thread, as a test does. On error nothing is left behind. */
int worker_init(struct worker *w, struct executor *x, struct queue *q, const struct worker_options *o, struct err *err);
/* One turn: takes orders and submissions (waiting for them if there is nothing to do), then launches a step or takes one in. False: told to stop. */
bool worker_turn(struct worker *w);

int worker_start(struct worker *w, struct err *err);
/* Stops the thread if there is one, cancels what is left, frees everything. Copes with a zeroed struct. */
void worker_close(struct worker *w);
