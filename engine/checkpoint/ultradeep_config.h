/* The keys of config.json that UltraDeep adds: layout, routers, norms, expert choice (docs/architectures.md). */
#pragma once
#include "engine/checkpoint/model_config.h"

/* Fills layout, router_type, mamba, norm_method and the fields of expert choice; n_layers must be read already. A key whose value is out
 * of its range is refused even where the combination gives it no meaning. */
int ultradeep_config_read(const json_t *config, const struct model_overrides *o, struct model_config *m, struct err *err);

/* "exact" or "threshold"; "none" with token choice. */
const char *expert_inference_name(const struct model_config *c);
const char *norm_method_name(enum norm_method n); /* "none", "lns", "hybridnorm", "hybridnorm*" */
