/* Every activation buffer of a step, planned from the config and allocated once at open. */
#pragma once
#include "engine/model/model.h"

struct workspace {
    struct kern_ctx *k;
    int max_rows;
    size_t bytes;             /* of all of them */
    struct dev_f32 *x;        /* [max_rows, hidden] residual stream */
    struct dev_f32 *packed_x; /* [max_rows, hidden] residual stream of packed rows; NULL where no layer packs any */
    struct dev_act *xn;       /* [max_rows, hidden] */
    struct dev_act *qkv;      /* [max_rows, (h + 2 hk) * hd], of the heads that the model holds */
    struct dev_act *attn;     /* [max_rows, h * hd] */
    struct dev_act *ffn;      /* [max_rows, ffn] */
    /* of one rank of n, NULL without others: its columns of attn, ffn and x */
    struct dev_act *attn_part; /* [max_rows, h * hd / n] */
    struct dev_act *ffn_part;  /* [max_rows, ffn / n] */
    struct dev_f32 *x_part;    /* [max_rows, hidden / n] */
    bool x_part_holds;         /* x_part holds its columns of the residual stream that the layer under way adds to */
    struct dev_f32 *router;    /* [max_rows, widest router]; NULL without routers */
    struct dev_u8
        *route; /* [n_layers, n] enum decision, n the rows of the step; dense layers' are not written. It stays until the next step */
    struct dev_f32 *prob;   /* [n_layers, n] compared probabilities */
    struct dev_f32 *gate;   /* [max_rows] */
    struct dev_f32 *margin; /* [max_rows] of the last router asked, where it has one */
    /* of nested layers; NULL without */
    struct dev_f32 *skip_gate; /* [max_rows] */
    struct dev_f32 *skip_prob; /* [n_layers, n] as prob; other layers' are not written */
    struct dev_u8 *router_bad; /* [recurrent routers, n] 1: the router's state is not finite at that row; NULL without */
    struct dev_i32 *no_pos;    /* [max_rows] zeros: positions where a layer has none; NULL where all have */
    struct kern_place place;   /* row lists of the layer under way; of place.packed what a layer that packs rows may need */
    struct dev_i32
        *lists; /* of the layers without a router: see workspace_lists; NULL: there is none, or the backend has no place_layers */
    /* the head, in chunks */
    int head_rows;             /* wanted rows of one chunk */
    struct dev_f32 *want_x;    /* [head_rows, hidden] */
    struct dev_act *want_xn;   /* [head_rows, hidden] */
    struct dev_f32 *logits;    /* [head_rows, vocab] */
    struct dev_f32 *target_lp; /* [max_rows] */
    struct dev_i32 *top_id;    /* [max_rows, KERN_TOP_K_MAX], packed to the k of the step; it stays until the next step's head */
    struct dev_f32 *top_lp;
    struct dev_u8 *bad;  /* [max_rows] */
    struct dev_f32 *lse; /* [max_rows] */
};

/* The lists of a layer in w->lists, in a step of so many rows, and how many ints those of a layer lie after those of the one before (of any layer: with routers
 * too). */
struct kern_place workspace_lists(const struct workspace *w, int layer, int n_rows);
static inline size_t workspace_lists_stride(int n_rows)
{
    return 5 * (size_t)n_rows + 4;
}

int workspace_init(struct workspace *w, const struct model *m, int max_rows, struct err *err);
void workspace_done(struct workspace *w); /* copes with half-built */
