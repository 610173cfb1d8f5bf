/* The rows of one step on the host, packed without padding: ids, positions, runs, key counts, reserved slots and wanted rows. The scheduler fills
 * them; batch.h copies what is used to a device in one piece.
 *
 * A run may *follow* one of the step before, which is in flight yet: its one row comes behind the last row of that one in their sequence, and its token is
 * the best that that row's logits name. Its id is -1 - i, i the place of the token among that step's top_id; the key count of a layer in which decisions
 * tell how many of that run's rows have K and V is -1 - c, c being the keys before that run. The device makes both of what it has.
 *
 * A run may *branch* from another one of its step (struct kern_branch). Its key count is then that run's, and where the host knows that all rows
 * have keys, as many more as precede it; elsewhere the device adds those that do (branch_counts). */
#pragma once
#include "engine/model/logit_edits.h"
#include "engine/model/sampler.h"
#include "kernels/kernels.h"

/* The token after a wanted row, how it is drawn and what it is. It belongs to who asks, and stays as it is, with all that it points to, from the
 * launch of the step until it is told (executor.h) or dropped. */
struct draw {
    const struct sampler_params *params;
    uint64_t index;                  /* of the token in its generation */
    const struct logit_edits *edits; /* NULL: none; params->temperature may be 0 with them */
    struct logit_history history;    /* used with edits */
    /* once it is told */
    int32_t token; /* -1: a logit is not finite */
    float logprob; /* by the model's own logits */
    struct draw *next;
    /* the drawer's (drawer.h) */
    int row;
    uint64_t step;
    const float *lse_from;
    float lse;
};

struct step_rows {
    int max_rows, n_layers;
    int n_rows, n_runs, n_append, n_want, n_saves, n_branches;
    int n_follow, n_before; /* runs that follow, and rows of the step that they follow */
    int top_k;              /* alternatives that the wanted rows need, at least 1 */
    bool want_probs;        /* what routers compared is read */
    /* capacity max_rows unless noted */
    int *ids, *pos, *run_of;
    struct kern_run *runs;        /* n_runs <= n_rows */
    int *base;                    /* [n_layers][max_rows]: keys of run i's sequence in layer l before the run, at base[l * max_rows + i] */
    int *after, *n_after;         /* of run i: the first of the appended rows that it follows, or -1, and how many they are */
    int *reserved;                /* [n_layers * n_append]: layer l may place its rows in reserved[l * n_append ..] */
    int *want_row, *want_target;  /* rows whose logits are wanted, ascending; the target token or -1 */
    struct draw **draws;          /* of the wanted rows, borrowed; NULL: nothing is drawn */
    struct kern_save *saves;      /* copies of router states to be kept, rows ascending */
    struct kern_branch *branches; /* at most one a run */
};

int step_rows_init(struct step_rows *s, int max_rows, int n_layers, struct err *err);
void step_rows_done(struct step_rows *s); /* copes with half-built and with a zeroed struct */
void step_rows_clear(struct step_rows *s);

/* Adds a run of n >= 1 rows at position pos0; the caller fills step_rows_base(s, layer, run). Returns the run. */
struct kern_run *step_rows_add_run(struct step_rows *s, const int32_t *ids, int n, int pos0, bool append, int64_t table_off, int table_cap);
/* Rows must be wanted in ascending order. target: a token or -1. Returns the index of the wanted row; it has no draw. */
int step_rows_want(struct step_rows *s, int row, int target, int top_k);

static inline int *step_rows_base(const struct step_rows *s, int layer, int run)
{
    return &s->base[(size_t)layer * (size_t)s->max_rows + (size_t)run];
}

/* KV slots that the step takes: one for each row it appends, in every layer. */
static inline int step_rows_slots(const struct step_rows *s)
{
    return s->n_append * s->n_layers;
}
