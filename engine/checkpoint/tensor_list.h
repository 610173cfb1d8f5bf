/* The tensors that a config and a plan call for, one by one: what inspect counts and synth writes (golden/README.md section 3). */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include <stdint.h>

enum tensor_role { ROLE_EMBEDDING, ROLE_NORM, ROLE_LINEAR, ROLE_BIAS, ROLE_ROUTER_NORM, ROLE_ROUTER_LINEAR, ROLE_ROUTER_BIAS };

struct tensor_spec {
    char name[128];
    enum tensor_role role; /* an untied lm_head is LINEAR */
    int layer;             /* -1: none */
    int64_t rows, cols;    /* cols 0: a vector of `rows` */
};

int64_t tensor_spec_elements(const struct tensor_spec *t);

/* Calls fn for every tensor, embeddings first, then layer by layer; stops at and returns the first negative result. A layer forced
 * dense is listed as a dense one. */
int tensor_list(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t),
                void *user);
