/* The queue and the one worker thread that owns model state; picks what runs together.
 *
 * Policy: every generating sequence gets its row in each step; prompts follow, running ones first, each at most half a step while others
 * wait; then new sequences are admitted, oldest window first and in prefix order inside a window, so that siblings meet in the tree.
 * A sequence whose next row another one is computing waits for it. Admission sets aside KV slots for all rows to come, so what runs can always finish. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include "engine/seq_list.h"

#define COMMIT_ROWS 32   /* rows whose results are taken in at a time */

struct engine_ticket {
    struct scheduler *owner;
    struct sequence *seqs;       /* [n] */
    int n;
    int remaining;               /* under owner->lock */
    atomic_bool cancelled;
    pthread_cond_t done;
};

struct scheduler {
    struct model *m;
    struct log *log;
    struct workspace w;
    struct batch batch;
    struct kv_cache kv;
    struct prefix_tree tree;
    struct scores scores;
    struct sequence_env env;
    int max_queue;
    /* worker only */
    struct seq_list fifo, ready, running;
    struct sequence **order;           /* [window] scratch for sorting */
    struct grant *grants;              /* [max_rows] */
    struct step_run *runs, *wants;     /* [max_rows] */
    unsigned char *route_host;         /* [n_layers, max_rows] */
    int *cursor, *cursor_before;       /* [n_layers] */
    int *row_slots;                    /* [COMMIT_ROWS, n_layers] */
    struct engine_stats counts;        /* the worker's own; published after each step */
    /* shared */
    pthread_mutex_t lock;              /* the only lock of the engine */
    pthread_cond_t wake, idle;
    struct seq_list inbox;             /* submitted, not yet seen by the worker */
    struct engine_stats published;
    int n_queued, n_running;
    bool started, stop, draining, sweep, clear;
    struct err failure;                /* code < 0: the device is lost */
    pthread_t worker;
};

struct scheduler_options {
    int max_batch_tokens, max_queue;
    int kv_slots;
    bool prefix_cache;
    size_t tree_bytes;                 /* host memory of the prefix tree */
    struct log *log;
};

int scheduler_open(struct scheduler *s, struct model *m, const struct scheduler_options *o, struct err *err);
void scheduler_close(struct scheduler *s);      /* copes with half-built; no ticket may be in use */

int scheduler_submit(struct scheduler *s, struct engine_ticket *t, struct err *err);
void scheduler_cancel(struct scheduler *s, struct engine_ticket *t);
void scheduler_clear_cache(struct scheduler *s);   /* returns when done */
