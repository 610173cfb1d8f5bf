/* One router of a written checkpoint, set to decide at a value. */
#pragma once
#include "engine/model/model.h"

/* Rows whose margin is above `cut` shall be selected: in `path` (the checkpoint's one file of tensors) the router's output bias is moved, or with
 * expert choice its threshold set, and in `m` the router is bound again. */
int synth_router_set(struct model *m, const char *path, int layer, bool skip, double cut, struct err *err);
