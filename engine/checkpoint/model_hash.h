/* What a checkpoint is, in 64 hex digits: SHA-256 over the bytes of config.json followed by those of the weight files in name order,
 * so `cat config.json model.safetensors | sha256sum` gives the same. */
#pragma once
#include "common/err.h"
#include <stdatomic.h>
#include <stdbool.h>

struct load_progress;
struct safetensors;

struct model_hash_source {
    const char *dir;             /* or a config's file */
    const struct safetensors *s; /* may have other readers, until safetensors_close */
    const char *more;            /* hashed after the files: what tells apart models that have none; NULL: nothing */
};

/* progress (or NULL) counts bytes of the weight files. Where *stop (NULL: never) becomes true it ends with ERR_CANCELLED. ret_hex: 64 lower-case digits and a NUL. */
int model_hash(const struct model_hash_source *of, const atomic_bool *stop, struct load_progress *progress, char ret_hex[65],
               struct err *err);
