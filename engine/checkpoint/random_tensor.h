/* What the tensors of a random checkpoint hold: the rule by which `synth` writes one, and by which `bench --random-weights` fills a device.
 *
 * Weights are normal: 2/sqrt(hidden_size) in embeddings, 1/sqrt(inputs) in routers, 0.02 elsewhere (what transformers calls initializer_range), less in
 * the two projections that write to the residual stream; attention's least, so that a token's routing depends on the token more than on the text
 * around it. Norms are 1, Mamba routers as their authors begin. */
#pragma once
#include "engine/checkpoint/tensor_schema.h"
#include "kernels/random_values.h"

/* The random values of tensor number `index` in the order of schema_walk; std 0: they are not random. */
struct random_values random_tensor_values(const struct model_config *c, const struct tensor_spec *t, uint64_t seed, uint64_t index);
/* Value i of a tensor that is not random. */
float random_tensor_constant(const struct tensor_spec *t, uint64_t i);
enum dtype random_tensor_dtype(const struct model_config *c, const struct tensor_spec *t);
