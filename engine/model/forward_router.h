/* The decisions of one layer: its routers, asked in order, and expert choice where the plan says so. */
#pragma once
#include "engine/model/batch.h"
#include "engine/model/workspace.h"

/* Decides what every row of the step does in a routed layer: w->route, w->prob and w->gate (of the rows that the attention router was asked
 * about: all, or in a nested layer the executed ones), w->margin of the last router asked, and in a nested layer what forward_router_skip
 * fills. A dense layer has no router: nothing is done. */
int forward_router(const struct model *m, struct workspace *w, const struct batch *b, int layer);
/* forward_router, and then place() of what it decides, in one, where the backend has that for the router and the rows, none of
 * which branch: 1; 0: nothing was done. */
int forward_router_place(const struct model *m, struct workspace *w, const struct batch *b, int layer, const struct kern_place *to);
/* The first half of a nested layer's decision: SKIP or LINEAR in w->route; w->skip_gate and w->skip_prob are s0; w->place.exec lists the
 * executed rows. */
int forward_router_skip(const struct model *m, struct workspace *w, const struct batch *b, int layer);
