/* Workers without threads, each on a fake executor, and groups of requests that are submitted to them. After each turn, and when they are closed, it is
 * checked that every KV slot is where it belongs. */
#pragma once
#include "engine/schedule/dispatch.h"
#include "engine/schedule/ticket.h"
#include "engine/schedule/worker.h"
#include "tests/unit/fake_executor.h"
#include "tests/unit/traffic.h"

#define WORKER_RIG_DEVICES 4
#define WORKER_RIG_JOBS 10
#define WORKER_RIG_GROUP 6 /* requests of a job at most */

struct worker_setting {
    const char *name;
    int max_rows, max_steps, n_kv_slots;
    int n_state_slots; /* 0: without router states */
    bool prefix_cache;
    bool whole_prompts;
    size_t tree_bytes;
    bool preempts; /* every sequence makes way once after each step that brought it a token, and now and then before */
    int n_devices; /* 0: one */
    bool follows;  /* executor.h; and traffic_generates */
    bool branches; /* executor.h */
};

/* One ticket. */
struct job {
    struct engine_ticket *ticket; /* NULL: the job is free */
    struct eval_request reqs[WORKER_RIG_GROUP];
    struct expect_watch watches[WORKER_RIG_GROUP];
    bool cancelled;
    int cancelled_at; /* turns before */
};

struct worker_rig {
    int n_devices;
    struct fake_executor *x[WORKER_RIG_DEVICES];
    struct queue queue;
    struct dispatch dispatch; /* of several devices */
    struct worker workers[WORKER_RIG_DEVICES];
    struct job jobs[WORKER_RIG_JOBS];
    bool preempts, follows, branches;
    bool holds;      /* tokens are drawn by the test alone (fake_executor_draw) */
    uint64_t client; /* whose the next jobs are; 0: anybody's */
    int n_turns;
    int may_fail; /* a code that requests may end with, beside what is expected of them; 0: none */
    /* of requests that ended, added up from their results */
    uint64_t n_done, n_failed, n_cancelled, n_scored, n_generated, n_cached, n_rows;
    uint64_t n_unexpected; /* that ended with may_fail */
};

/* False: no memory. */
bool worker_rig_open(struct worker_rig *r, const struct worker_setting *s);
/* Runs until all is answered, checks that nothing is left behind, and frees everything. */
void worker_rig_close(struct worker_rig *r);

/* Submits a random group as job j, which is free. Returns what the queue said. */
int worker_rig_submit(struct worker_rig *r, int j);
/* The same with so many requests. */
int worker_rig_submit_group(struct worker_rig *r, int j, int n);
/* One request, which need not say whom it tells. */
int worker_rig_submit_one(struct worker_rig *r, int j, const struct eval_request *q);
void worker_rig_cancel(struct worker_rig *r, int j);
/* Has the workers clear their caches in their next turn. */
void worker_rig_clear(struct worker_rig *r);
/* A turn of one of them; false: there is nothing to do, and all would sleep. */
bool worker_rig_turn(struct worker_rig *r);
/* What clients do: one submits, cancels, looks for results, or clears the caches; then a few turns, up to three a worker. */
void worker_rig_act(struct worker_rig *r);
/* The counts of all. */
struct engine_stats worker_rig_stats(struct worker_rig *r);
/* Turns until all jobs are done; checks their results and frees them. */
void worker_rig_settle(struct worker_rig *r);
/* If the job is done, checks its results and frees it. */
void worker_rig_check(struct worker_rig *r, int j);
