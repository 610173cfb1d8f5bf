/* From Oniguruma's syntax to PCRE2's. */
#pragma once
#include "common/buf.h"
#include "common/err.h"

#define REGEX_MAX_BYTES ((size_t)16384)
#define REGEX_MAX_DEPTH 64 /* groups and classes in one another */

/* Appends the expression in PCRE2's spelling. What both libraries read alike is copied; \s and \w become the Unicode properties that
 * Oniguruma means, \b what stands between \w and others; unions and intersections of classes become alternatives and lookaheads of one
 * character; an option in the middle of a group lasts to the group's end, alternatives included. Everything that they read differently
 * is ERR_UNSUPPORTED, naming it: among these, text without regard to case where one character equals two (ss and U+00DF). */
int regex_from_onig(const char *regex, size_t len, struct buf *out, struct err *err);
