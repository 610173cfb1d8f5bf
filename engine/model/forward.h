/* The forward loop: embed, layers as the plan says, and the head on wanted rows only. One loop serves every family. */
#pragma once
#include "engine/model/batch.h"
#include "engine/model/forward_router.h"
#include "engine/model/kv_memory.h"
#include "engine/model/workspace.h"

/* Runs the rows of an uploaded batch through all layers. Afterwards w->x holds the residual stream (after the last layer, that of the wanted
 * rows only), w->route and w->prob the decisions, and new K and V lie in the reserved slots. Runs that follow (step_rows.h) need w->route and w->top_id as
 * the step before has left them. */
int forward_layers(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_memory *kv);

/* The parts that forward_layers is made of, in order: w->x = the rows' embeddings; then layer by layer, each of which asks its routers by
 * itself (forward_router.h). */
int forward_embed(const struct model *m, struct workspace *w, const struct batch *b);
int forward_layer(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_memory *kv, int layer);

/* Log-probabilities of wanted rows first .. first+n-1 of the batch (n <= w->head_rows): the final norm and the head, then
 * target_lp, top_id, top_lp, bad and lse at indices first.. of the workspace (top_* packed to top_k). The logits stay in w->logits until the next call. */
int forward_head(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k);
/* The scores alone, again from the logits that are still there. */
int forward_scores(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k);
