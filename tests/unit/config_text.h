/* A config from text, as tests write it, with what reading it says in the log. */
#pragma once
#include "engine/checkpoint/model_config.h"

/* Members of config.json that every type of model needs, but for model_type and architectures. */
#define CONFIG_SHAPE "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":4,\"num_attention_heads\":4,\"vocab_size\":256"

/* Parses config (an object's members without braces) and generation_config (the same; NULL: none). *e is cleared first. */
int config_text_read(const char *members, const char *generation, const struct model_overrides *o, struct model_config *ret, struct err *e);
extern char config_text_log[4096]; /* warnings of the latest call */
