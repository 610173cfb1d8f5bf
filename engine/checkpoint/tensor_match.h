/* The tensors of a checkpoint against the schema. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/dtype.h"
#include <stdint.h>

/* Every tensor that config and plan call for must be there with its shape and a dtype that is implemented, and nothing else may be: what no
 * row asks for would be silently ignored weights. The error names the first tensor that is wrong. Let go are rotary_emb.inv_freq buffers of
 * old saves, a tied lm_head.weight, and the routers of layers that run dense by --dense-layers.
 * ret_params: values stored, without buffers and a tied head; may be NULL. */
int tensor_match(const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s, int64_t *ret_params,
                 struct err *err);
/* Other dtypes than F32, BF16 and F16 are an error. */
int tensor_match_dtype(const struct tensor *t, enum dtype *ret, struct err *err);
