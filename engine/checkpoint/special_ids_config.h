/* BOS and EOS: config.json's, over them generation_config.json's, over both the command line's. */
#pragma once
#include "engine/checkpoint/model_config.h"

/* Fills bos_id, eos_id, eos_ids and n_eos; type and vocab must be read already. generation, o: NULL: none. */
int special_ids_config_read(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                            struct model_config *m, struct err *err);
