/* An executor without model and backend (engine/schedule/executor.h) that runs fake_model.h. It keeps what a device would: for every KV slot which token,
 * position and layer were written there, the router states in their slots, and the block tables. A step is computed when it is launched and told when it is waited for, a drawn token
 * when the worker or the test draws it; what can be read before is poison. Breaches of the executor's contract are printed and counted. It allocates nothing after it is open. */
#pragma once
#include "engine/schedule/executor.h"
#include "tests/unit/fake_model.h"
#include <stdatomic.h>

struct fake_key {
    int token, pos, layer;
};

/* Results of one step, in one allocation (`block`). */
struct fake_results {
    char *block;
    unsigned char *route, *bad, *bad_states;
    int *target, *top_id;
    float *target_lp, *top_lp, *prob, *skip_prob;
};

struct fake_flight {
    struct step_rows *rows; /* borrowed; NULL: no step is in flight */
    uint64_t number;        /* in the order of launches */
    uint64_t rows_hash;     /* of `rows` when it was launched */
    struct fake_results hidden, told;
};

#define FAKE_DRAWS_MAX 512

/* A token that is to be drawn. */
struct fake_draw {
    struct draw *draw;
    struct draw asked; /* as it was when the step was launched */
    uint64_t row;
    bool bad;
};

struct fake_executor {
    struct executor face;
    struct fake_kind kind;
    struct fake_key *keys; /* [n_kv_slots] */
    int *tables;           /* [n_table_entries] */
    uint64_t *states;      /* [n_state_slots] */
    int *ids, *base;       /* [max_rows], [n_layers, max_rows] of the step, those of runs that follow or branch made */
    int *visible;          /* [n_layers, max_rows] keys that a row of the step sees */
    uint64_t *contexts;    /* [max_rows] of the step's rows */
    struct fake_flight flights[EXECUTOR_STEPS_MAX];
    size_t results_bytes;
    struct fake_draw draws[FAKE_DRAWS_MAX]; /* in the order of launches */
    int n_draws, n_draws_begun, n_drawn;    /* of them: those whose step is over, and those whose token is there */
    bool holds_draws;                       /* the worker cannot draw tokens itself: fake_executor_draw does */
    void (*wake)(void *arg);
    void *wake_arg;
    uint64_t n_launched, n_waited, n_followed; /* steps; rows that followed */
    int latest;                                /* the step launched last */
    int n_calls;                               /* launch, wait and write_table */
    int fail_at;                               /* the call from which on all fail, counted from 1; 0: none */
    int n_drops, n_breaches;
    atomic_int n_rests;
};

/* Of FAKE_LAYERS layers, which need not be said in `l`; n_state_slots and whole_prompts say which kind the model is of. NULL: no memory. */
struct fake_executor *fake_executor_open(const struct executor_limits *l);
/* Draws the oldest token that waits, as a thread beside the worker would. False: none does. */
bool fake_executor_draw(struct fake_executor *x);
void fake_executor_close(struct fake_executor *x); /* NULL is valid */
