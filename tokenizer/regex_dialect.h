/* From Oniguruma's syntax to PCRE2's. */
#pragma once
#include "common/buf.h"
#include "common/err.h"

#define REGEX_MAX_BYTES ((size_t)16384)

/* Appends the expression in PCRE2's spelling. What both libraries read alike is copied; \s and \w become the Unicode
 * properties that Oniguruma means; everything they read differently is ERR_UNSUPPORTED, naming it. */
int regex_from_onig(const char *regex, size_t len, struct buf *out, struct err *err);
