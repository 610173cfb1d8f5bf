/* Levels of a backend: an ordered list of names, of which one bounds what is used. */
#pragma once
#include "common/err.h"

/* names: [n], lowest first; have: index of the highest that works, on what `where` calls it ("machine", "device"). name NULL: `have`.
 * ERR_INVALID for an unknown name, ERR_UNSUPPORTED for a level above `have`; both name `field`. */
int level_parse(const char *field, const char *where, const char *const *names, int n, int have, const char *name, int *ret,
                struct err *err);
