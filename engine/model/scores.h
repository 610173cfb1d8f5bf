/* Wanted rows to scores: runs the head in bounded chunks, and brings the results to the host, of rows that draw the logits too. */
#pragma once
#include "engine/model/drawer.h"
#include "engine/model/forward.h"

#define SCORES_MARK (BACKEND_MARKS - 1) /* of scores_run */

struct scores {
    struct kern_ctx *k;
    int top_k; /* alternatives a row has in the last run */
    /* alloc_host memory */
    float *target_lp;      /* [n_want] logprob of want_target */
    int *top_id;           /* [n_want, top_k] */
    float *top_lp;         /* [n_want, top_k] */
    unsigned char *bad;    /* [n_want] not finite */
    float *lse;            /* [n_want] where rows draw */
    uint64_t step;         /* of the last run */
    struct drawer *drawer; /* borrowed */
};

int scores_init(struct scores *s, const struct model *m, struct drawer *drawer, int max_rows, struct err *err);
void scores_done(struct scores *s); /* copes with half-built and with a zeroed struct */

/* Issues the head over all wanted rows of the batch and the copies that fill s: it may be read when a later mark has passed (backend.h). Rows that draw take
 * places of the drawer, as of this step; the logits are there by the same mark. Only where all places are taken does it wait, for the device (by SCORES_MARK) and for
 * draws.
 * step: counted by the caller. head_issued: forward_head was, for all of them. */
int scores_run(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, uint64_t step,
               bool head_issued, struct err *err);
