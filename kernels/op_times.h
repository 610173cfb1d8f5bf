/* How a backend's busy time divides into matmuls, attention and the rest, at next to no cost: one step in a second is sampled, with time stamps
 * around its ops, and busy time is divided as the latest sample was. A sampled step is issued op by op (kernels.h: replay is left out).
 *
 * Belongs to the thread of its kern_ctx. */
#pragma once
#include "kernels/backend.h"

enum op_kind { OP_MATMUL, OP_ATTENTION, OP_OTHER, OP_KINDS };

#define OP_TIMES_INTERVAL_S 1.0

struct op_times {
    struct kern_ctx *k;
    const struct kern_ops *ops; /* the backend's own */
    struct kern_ops timed;      /* k->ops of a sampled step */
    enum { OP_TIMES_IDLE, OP_TIMES_SAMPLING, OP_TIMES_PENDING } state;
    bool any;                              /* a step was sampled */
    double sampled_s;                      /* when the latest sample began */
    int n_stamps;                          /* 0: begin; 1, 2: around the first op, ..; the last: end */
    enum op_kind kind[BACKEND_STAMPS / 2]; /* of ops, by the stamps around them */
    double share[OP_KINDS];                /* of the latest sample; all 0: none is known */
    double undivided_s;                    /* busy time before any share was known */
    double seconds[OP_KINDS];              /* busy time, divided */
};

void op_times_init(struct op_times *t, struct kern_ctx *k);
/* Around the ops of a step; end comes whatever failed. begin tells whether the step is sampled, `now_s` being any clock's seconds; an error is the backend's. */
int op_times_begin(struct op_times *t, double now_s, bool *ret_sampled);
int op_times_end(struct op_times *t);
/* Adds busy time to `seconds`; asks for the results of a sample that is under way. */
void op_times_busy(struct op_times *t, double busy_s);
