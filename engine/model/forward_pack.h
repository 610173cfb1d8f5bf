/* Executed rows side by side. A layer with a gate over all of it leaves some rows alone; it packs the others (kernels.h), computes on these, and blends
 * what comes out into the rows they came from. */
#pragma once
#include "engine/model/batch.h"
#include "engine/model/workspace.h"

static inline bool forward_packs(const struct layer_plan *p)
{
    return p->layer_gate != GATE_NONE;
}

/* Fills w->packed_x from the rows w->place.exec of w->x, and w->xn with what the layer's attention reads. */
int forward_pack(const struct model *m, struct workspace *w, const struct batch *b, int layer);
/* Where place() is to leave its results for the layer. */
struct kern_place forward_pack_place(const struct workspace *w, const struct layer_plan *p);
/* The step as it looks to packed rows, once place() has filled `place`. */
struct kern_step forward_pack_step(const struct batch *b, const struct kern_place *place);
/* The layer's end, a [.., lda] being the packed input of its last product: w->x gets the gated sum of w->packed_x and the product. */
int forward_pack_product(const struct model *m, struct workspace *w, const struct batch *b, int layer, const struct dev_act *a, int lda,
                         const struct kern_matrix *last);
/* The same where the product is in w->packed_x already. */
int forward_pack_blend(const struct model *m, struct workspace *w, const struct batch *b, int layer);
