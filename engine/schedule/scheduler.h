/* The queue and the one worker thread that owns model state; picks what runs together.
 *
 * Policy: every generating sequence gets its row in each step; prompts share the others, and long ones leave short ones room (admission.h).
 * New sequences are admitted oldest window first and in prefix order inside a window, so that siblings meet in the tree.
 * A sequence whose next row another one is computing waits for it. Admission sets aside KV slots for all rows to come, so what runs can always finish.
 *
 * While the device computes a step the worker launches the next one, of sequences that are not in flight, and then takes in the results of the first.
 * Less than half a step waits for sequences that the step in flight will bring back, or for those that wait for its rows: generating ones above all
 * are best computed together. */
#pragma once
#include "engine/schedule/commit.h"
#include "engine/schedule/flight.h"
#include "engine/schedule/seq_list.h"
#include "kernels/op_times.h"
#include <pthread.h>
#include <stdatomic.h>

#define WINDOW 1024 /* sequences sorted into prefix order at a time */

struct engine_ticket {
    struct scheduler *owner;
    struct sequence *seqs; /* [n] */
    int n;
    int remaining; /* under owner->lock */
    atomic_bool cancelled;
    pthread_cond_t done;
};

struct grant {
    struct sequence *seq;
    int n;   /* rows of the next step */
    int due; /* rows that it could use */
};

struct scheduler {
    struct model *m;
    struct log *log;
    struct workspace w;
    struct kv_cache kv;
    struct prefix_tree tree;
    struct sequence_env env;
    int max_rows, max_queue;
    /* worker only */
    struct seq_list fifo, ready, running;
    struct flight flights[STEPS_IN_FLIGHT_MAX];
    int max_flights;
    uint64_t n_launched;
    struct sequence **order; /* [WINDOW] scratch for sorting */
    struct grant *grants;    /* [max_rows] */
    struct commit commit;
    struct op_times times;
    struct engine_stats counts; /* the worker's own; published after each step */
    /* shared */
    pthread_mutex_t lock; /* the only lock of the engine */
    pthread_cond_t wake, idle;
    struct seq_list inbox; /* submitted, not yet seen by the worker */
    struct engine_stats published;
    int n_queued, n_running;
    bool started, stop, draining, sweep, clear;
    struct err failure; /* code < 0: the device is lost */
    pthread_t worker;
};

struct scheduler_options {
    int max_batch_tokens, max_queue;
    int steps_in_flight; /* 1..STEPS_IN_FLIGHT_MAX */
    int kv_slots;
    bool prefix_cache;
    size_t tree_bytes; /* host memory of the prefix tree */
    struct log *log;
};

int scheduler_open(struct scheduler *s, struct model *m, const struct scheduler_options *o, struct err *err);
void scheduler_close(struct scheduler *s); /* copes with half-built; no ticket may be in use */

int scheduler_submit(struct scheduler *s, struct engine_ticket *t, struct err *err);
void scheduler_cancel(struct scheduler *s, struct engine_ticket *t);
void scheduler_clear_cache(struct scheduler *s); /* returns when done */
