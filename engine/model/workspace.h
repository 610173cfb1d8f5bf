/* Every activation buffer of a step, planned from the config and allocated once at open. */
#pragma once
#include "engine/model/model.h"

struct workspace {
    struct kern_ctx *k;
    int max_rows;
    size_t bytes;            /* of all of them */
    float *x;                /* f32 [max_rows, hidden] residual stream */
    float *x0;               /* f32 [max_rows, hidden] a gated layer's input; NULL where no layer needs it */
    void *xn;                /* act [max_rows, hidden] */
    void *qkv;               /* act [max_rows, (h + 2 hk) * hd] */
    void *attn;              /* act [max_rows, h * hd] */
    void *ffn;               /* act [max_rows, ffn] */
    float *router;           /* f32 [max_rows, widest router]; NULL without routers */
    unsigned char *route;    /* [n_layers, n] decisions, n the rows of the step; dense layers' are not written */
    float *prob;             /* f32 [n_layers, n] compared probabilities */
    float *gate;             /* f32 [max_rows] */
    struct kern_place place; /* row lists of the layer under way */
    /* the head, in chunks */
    int head_rows;    /* wanted rows of one chunk */
    float *want_x;    /* f32 [head_rows, hidden] */
    void *want_xn;    /* act [head_rows, hidden] */
    float *logits;    /* f32 [head_rows, vocab] */
    float *target_lp; /* f32 [max_rows] */
    int *top_id;      /* [max_rows, KERN_TOP_K_MAX], packed to the k of the step */
    float *top_lp;
    unsigned char *bad; /* [max_rows] */
};

int workspace_init(struct workspace *w, const struct model *m, int max_rows, struct err *err);
void workspace_done(struct workspace *w); /* copes with half-built */
