/* Records of layers, from the config alone: layer_plan.c's other half. */
#pragma once
#include "engine/checkpoint/layer_plan.h"

/* Layer l has a router in this family's layout. */
bool layer_record_is_routed(const struct model_config *c, enum family family, int l);
/* has_thresholds: expert choice's thresholds are stored. */
struct layer_plan layer_record(const struct model_config *c, enum family family, int l, bool has_thresholds);
/* The same layer run dense: no router, no gate; norms and the names of tensors stay. */
struct layer_plan layer_record_dense(const struct layer_plan *p);
