/* What a path is that is not a checkpoint in safetensors, and what to do with it: one sentence. */
#pragma once
#include "common/err.h"

/* `path` has no config.json in it: it may be no directory at all, the name of a repository, a file, a folder of folders. Always ERR_NOT_FOUND. */
int model_hint_no_config(const char *path, struct err *err);
/* `dir` has neither model.safetensors nor an index of shards. Always ERR_NOT_FOUND. */
int model_hint_no_weights(const char *dir, struct err *err);
/* 0 if `path` is a directory with a config.json, else model_hint_no_config: for callers that would first complain of something else. */
int model_hint_check(const char *path, struct err *err);
