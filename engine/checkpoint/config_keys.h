/* Which keys of config.json are read, which say nothing about inference, and which must have the value that changes nothing. */
#pragma once
#include "common/err.h"
#include "common/json.h"

/* Refuses, by name, every key of `config` that could change the arithmetic and is not implemented. A key that is not known at all
 * passes only if it is null, false or empty. */
int config_keys_check(const json_t *config, struct err *err);
