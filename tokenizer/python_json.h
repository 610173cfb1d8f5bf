/* JSON files that transformers reads with Python's json module, which knows NaN, Infinity and -Infinity. */
#pragma once
#include "common/err.h"
#include <jansson.h>

/* The object in DIR/NAME; *ret is NULL when there is no such file. Infinity becomes 1e99, NaN 0: nothing that is read of these files
 * is a number. ERR_CORRUPT, naming the file, for one that is no JSON object or has more than 32 MiB. */
int python_json_read(const char *dir, const char *name, json_t **ret, struct err *err);
