/* Rotary frequency and cos/sin tables (as transformers' modeling_rope_utils.py). */
#pragma once
#include "engine/checkpoint/model_config.h"

/* inv_freq: f32 [head_dim/2]. Multiply cos and sin by c->attention_factor. */
void rope_frequencies(const struct rope_config *c, int head_dim, float *inv_freq);

/* cos, sin: f32 [n_pos, width], width >= head_dim/2; angles are float32 products of position and frequency, the factor is applied. What
 * is beyond head_dim/2 turns nothing: cos 1, sin 0. */
void rope_tables(const struct rope_config *c, int head_dim, int width, int n_pos, float *cos, float *sin);
