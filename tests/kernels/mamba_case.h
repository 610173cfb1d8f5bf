/* What check_mamba.c checks: a Mamba router of random weights with some sequences, steps that are made of pieces of them, and the reference of a row. */
#pragma once
#include "tests/check/harness.h"

enum { MAX_SEQ = 6, MAX_ROWS = 700, ROUTERS = 2, ROUTER = 1, SAVES = 8, SLOTS = 2 * MAX_SEQ + SAVES };
enum { BELOW = DECISION_LINEAR, ABOVE = DECISION_ATTEND, UNTOUCHED = 7 };

struct mamba_shape {
    int d, r, e, n_state, n_conv, n_dt;
};

/* One tensor: as stored, and as floats. */
struct mamba_tensor {
    void *stored;
    float *v;
};
enum { IN, IN_BIAS, NORM, MIX, CONV, CONV_BIAS, X, DT, DT_BIAS, A_LOG, SKIP, MIX_OUT, OUT, OUT_BIAS, TENSORS };

struct mamba_case {
    struct mamba_shape s;
    struct mamba_tensor t[TENSORS];
    struct mamba_parts parts;
    struct kern_mamba *w;
    bool threshold;
    float limit;
    void *dev_limit, *states; /* [SLOTS, ROUTERS, state floats] */
    int state_floats, n_seq, len[MAX_SEQ];
    float *x[MAX_SEQ];
};

/* Results of one row. */
struct mamba_row {
    float prob, gate, margin;
    unsigned char route, bad;
};

/* Rows begin .. end-1 of sequence seq as a run. */
struct mamba_piece {
    int seq, begin, end, state_in, state_out;
    int n_save, save_at[SAVES], save_slot[SAVES]; /* positions and slots */
};

void mamba_case_make(struct check *c, struct mamba_case *p, struct mamba_shape s, int n_seq, int longest);
void mamba_case_free(struct check *c, struct mamba_case *p);
/* Runs the pieces as one step. idx: the rows that get a decision, NULL: all. ret: [rows]. */
void mamba_case_run(struct check *c, const struct mamba_case *p, const struct mamba_piece *pieces, int n_pieces, const int *idx, int n_idx,
                    struct mamba_row *ret);
/* The states of a slot; all slots are checked for their guards. */
void mamba_case_slot(struct check *c, const struct mamba_case *p, int slot, float *ret);

/* What a sequence has come to, in double. */
struct mamba_reference {
    double *tail, *state; /* [n_conv-1, e], [e, n_state] */
    double r[2], size;    /* size: of what the margin is a sum of */
};

/* The next row, x [d]: r0 and r1, and the states after it. */
void mamba_reference_row(const struct mamba_case *p, struct mamba_reference *ref, const float *x);
