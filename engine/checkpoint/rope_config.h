/* RoPE settings as transformers writes them, turned into effective values. */
#pragma once
#include "common/json.h"
#include "engine/checkpoint/model_config.h"

/* config: config.json. override: the engine option rope_scaling, or NULL. rope_scaling follows the rule of transformers 4 (an original length
 * replaces `factor` by max_position_embeddings / original); in rope_parameters and in `override` factor counts. */
int rope_config_read(const json_t *config, const json_t *override, int max_position_embeddings, struct log *log, struct rope_config *ret,
                     struct err *err);
/* Positions that the settings are made for. */
int rope_config_length(const struct rope_config *c, int max_position_embeddings);
