/* Which keys of config.json are read, which say nothing about inference, and which must have the value that changes nothing. */
#pragma once
#include "common/err.h"
#include "common/json.h"
#include "common/log.h"
#include "engine/checkpoint/model_type.h"

/* Refuses, by name, every key of `config` that could change the arithmetic and is not implemented. A key that is not known at all
 * passes only if it is null, false or empty. */
int config_keys_check(const json_t *config, enum model_type type, struct err *err);

/* A copy of `config` without the keys of `names` ("a,b"; NULL: none), for which the user vouches; each is said in the log. ERR_INVALID for a key
 * that is read. *ret: the caller's. */
int config_keys_pass_over(const json_t *config, const char *names, enum model_type type, struct log *log, json_t **ret, struct err *err);

const char *config_keys_ignored(size_t i); /* the list of keys without effect, in order of names; NULL: the end */
