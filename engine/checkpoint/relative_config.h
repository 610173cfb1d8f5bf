/* The keys that tell dense relatives from LLaMA: windows of attention, layers without positions, biases and norms of heads. */
#pragma once
#include "engine/checkpoint/model_config.h"

/* Fills window, no_rope, qkv_bias, o_bias, mlp_bias and qk_norm; all else must be read already. Keys of routed layers are refused beside
 * other types than llama: nothing defines what the two make together. */
int relative_config_read(const json_t *config, struct model_config *m, struct err *err);
