/* Wanted rows to scores: runs the head in bounded chunks, samples where asked, and brings the results to the host. */
#pragma once
#include "engine/model/drawer.h"
#include "engine/model/forward.h"

struct scores {
    struct kern_ctx *k;
    int top_k; /* alternatives a row has in the last run */
    /* alloc_host memory */
    float *target_lp;      /* [n_want] logprob of want_target; of the sampled token where one was drawn */
    int *top_id;           /* [n_want, top_k] */
    float *top_lp;         /* [n_want, top_k] */
    unsigned char *bad;    /* [n_want] not finite */
    struct drawer *drawer; /* borrowed */
};

int scores_init(struct scores *s, const struct model *m, struct drawer *drawer, int max_rows, struct err *err);
void scores_done(struct scores *s); /* copes with half-built and with a zeroed struct */

/* Issues the head over all wanted rows of the batch and the copies that fill s: it may be read when a later mark has passed (backend.h).
 * Where `rows` has a draw, which waits for the device, the token is written to rows->want_target. head_issued: forward_head was, for all of them. */
int scores_run(struct scores *s, const struct model *m, struct workspace *w, struct batch *b, struct step_rows *rows, bool head_issued,
               struct err *err);
