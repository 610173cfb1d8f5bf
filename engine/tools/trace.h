/* Whole sequences through a model in one step, layer by layer, with every intermediate value in reach: for calibration and for tests.
 * No tree and no scheduler; K and V of a layer are overwritten by those of the next, since nothing outlives the step. */
#pragma once
#include "engine/model/forward.h"

struct trace {
    const struct model *m;
    struct workspace w;
    struct step_rows rows;
    struct batch b;
    struct kv_memory kv; /* its one slot of states: those after the first sequence */
};

int trace_open(struct trace *t, const struct model *m, int max_rows, struct err *err);
void trace_close(struct trace *t); /* copes with half-opened and zeroed */

/* Packs n_seqs sequences of `len` tokens each, from position 0, and uploads them. ids: [n_seqs, len]; n_seqs * len <= max_rows,
 * len <= m->max_model_len. Expert choice is that of a first pass. The last `n_want` rows of each sequence will be wanted by forward_head. Then call the parts of forward.h
 * with t->m, &t->w, &t->b and &t->kv. */
int trace_load(struct trace *t, const int32_t *ids, int n_seqs, int len, int n_want);
