/* RoPE settings as transformers writes them, turned into effective values. */
#pragma once
#include "common/json.h"
#include "engine/checkpoint/model_config.h"

/* How a type of model reads them. */
struct rope_rules {
    int max_positions; /* max_position_embeddings */
    double theta;      /* rope_theta where it is absent */
    bool
        ratio; /* of YaRN in rope_scaling with an original length: max_positions / original, transformers 4.52's rule; else `factor`, that of
                          4.57 and 5 */
    bool asked; /* `ratio` is the user's choice: holds in rope_parameters as well, which else follow transformers 5 */
};

/* config: config.json. override: the engine option rope_scaling, or NULL; in it `factor` counts. Which of two factors that differ is used is
 * said in the log, unless it was asked for. */
int rope_config_read(const json_t *config, const json_t *override, const struct rope_rules *rules, struct log *log, struct rope_config *ret,
                     struct err *err);
/* Positions that the settings are made for. */
int rope_config_length(const struct rope_config *c, int max_position_embeddings);
