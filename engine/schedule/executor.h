/* Where steps are computed: the seam between deciding what runs and running it. An executor alone owns a model, its activations, its KV memory and the
 * steps in flight; it knows rows, slots and tables, but no requests. device_executor.h runs steps on a backend; tests have others.
 *
 * What the host tells it of a step (struct step_rows) includes each sequence's key counts and the KV slots that rows may take. An executor that
 * keeps these on the device may ignore them; results then say what was taken.
 *
 * Tokens are drawn beside the steps: a wanted row with a draw has its alternatives when its step is over, and its token is told later.
 *
 * All calls come from one thread. A call that fails has lost the device: nothing but drop and close may follow. */
#pragma once
#include "engine/memory/route_bits.h"
#include "engine/model/step_rows.h"

#define EXECUTOR_STEPS_MAX 2 /* steps in flight: one computes, one waits behind it; more would not make a device busier */

struct executor;

/* What an executor can hold; fixed while it is open. */
struct executor_limits {
    int max_rows;  /* of one step */
    int max_steps; /* in flight, 1..EXECUTOR_STEPS_MAX */
    int n_layers;
    const struct route_layer *layers; /* [n_layers] */
    int n_kv_slots;
    int64_t n_table_entries;
    int n_state_slots;  /* places for the router states of a sequence; 0: routers have none */
    bool follows;       /* runs may follow the step before (step_rows.h), which is the one launched last */
    bool branches;      /* runs may branch from runs of their step */
    bool whole_prompts; /* selectors see the whole sequence: a prompt is one run of one step, and nothing of it is reused */
    int max_positions;  /* of one sequence */
};

/* KV slots that the steps in flight and the one being packed may take. */
static inline int64_t executor_slots_under_way(const struct executor_limits *l)
{
    return (int64_t)(l->max_steps + 1) * l->max_rows * l->n_layers;
}

/* Of a step that is over; borrowed until its number is launched again. */
struct step_results {
    const unsigned char *route;      /* [n_layers, n_rows] enum decision; layers without a router are not filled */
    const float *prob;               /* [n_layers, n_rows] what routers compared; NULL: not wanted. Filled where a router was asked */
    const float *skip_prob;          /* the same of nested layers' skip routers; NULL as well where no layer is nested */
    int top_k;                       /* of the step */
    const int *target;               /* [n_want] as given */
    const float *target_lp;          /* [n_want] its logprob; 0 where there is none */
    const int *top_id;               /* [n_want, top_k] best first */
    const float *top_lp;             /* [n_want, top_k] */
    const unsigned char *bad;        /* [n_want] the logits are not finite, and the rest of the row is unspecified */
    const unsigned char *bad_states; /* [routers with a state, n_rows] 1: not finite from here on; NULL: there are none */
};

/* What the device has been doing. */
struct executor_stats {
    double matmul_s, attention_s, other_s;          /* busy time, divided as steps sampled once a second were (kernels/op_times.h) */
    uint64_t memory_total_bytes, memory_free_bytes; /* when the latest sampled step began */
};

struct executor_ops {
    /* Issues everything that computes a step, under a number 0 .. max_steps-1 that is not in flight. `rows` stays as it is until the step is over. */
    int (*launch)(struct executor *x, int id, struct step_rows *rows, struct err *err);
    /* Returns when the step is over. Steps are waited for in the order of their launches. */
    int (*wait)(struct executor *x, int id, struct step_results *ret, struct err *err);
    /* Draws of steps that were waited for, once their tokens are there, linked by `next`: each is told once. NULL: none. */
    struct draw *(*drawn)(struct executor *x);
    /* The caller has nothing else to do, and draws a token of such a step itself. False: none waits; others may be drawing yet. */
    bool (*help_draw)(struct executor *x);
    /* wake(arg) is called by any thread when the last token is there that was being drawn; it must not call the executor. */
    void (*notify)(struct executor *x, void (*wake)(void *arg), void *arg);
    /* Ends all steps in flight without results, and forgets all draws; returns when the device is idle or lost. err: NULL, or gets what the device says of a failure, if
     * it holds no code yet. */
    void (*drop)(struct executor *x, struct err *err);
    /* No step is in flight and no token is being drawn, and nothing is waiting: memory that only a burst needs may go back to the machine. */
    void (*rest)(struct executor *x);
    /* Writes entries off .. off+n-1 of the block tables; ordered with steps. */
    int (*write_table)(struct executor *x, int64_t off, const int *entries, int64_t n);
    /* The caller has been busy with steps for so many seconds more. */
    void (*report)(struct executor *x, double busy_s, struct executor_stats *ret);
    void (*close)(struct executor *x);
};

struct executor {
    const struct executor_ops *ops;
    struct executor_limits limits;
};
