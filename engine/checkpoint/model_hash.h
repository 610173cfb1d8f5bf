/* What a checkpoint is, in 64 hex digits: SHA-256 over the bytes of config.json followed by those of the weight files in name order,
 * so `cat config.json model.safetensors | sha256sum` gives the same. */
#pragma once
#include "common/err.h"

struct load_progress;
struct safetensors;

/* progress (or NULL) counts bytes of the weight files. ret_hex: 64 lower-case digits and a NUL. Only reads `s`; may run beside other readers of it, until safetensors_close. */
int model_hash(const char *dir, const struct safetensors *s, struct load_progress *progress, char ret_hex[65], struct err *err);
