/* What splits and replacements look for: a literal string, a class of characters, runs of such, or a regular expression.
 *
 * Regular expressions in tokenizer.json are written for Oniguruma (Ruby syntax, UTF-8). They run on PCRE2 here: the few
 * classes that differ are rewritten (\s, \w), and constructs that the two read differently are refused by name. */
#pragma once
#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pattern;

int pattern_literal(const char *s, size_t len, struct pattern **ret, struct err *err);
int pattern_class(bool (*is_member)(uint32_t cp), struct pattern **ret, struct err *err);
/* Runs of characters of one kind; kind 0 is what lies between them. */
int pattern_runs(int (*kind_of)(uint32_t cp), struct pattern **ret, struct err *err);
/* ERR_UNSUPPORTED for a construct we do not run, ERR_CORRUPT for one that does not compile. */
int pattern_regex(const char *regex, size_t len, struct pattern **ret, struct err *err);
void pattern_free(struct pattern *p);               /* NULL is valid */
bool pattern_may_be_empty(const struct pattern *p); /* may a match be of no characters? */

/* Matches in text[0..len) (valid UTF-8), left to right, none overlapping; an empty match right behind a match does not
 * count (the onig crate's find_iter). Zero-initialise `scan`. 1: found, 0: no more, or ERR_INVALID when the matcher gives
 * up (its backtracking limit), or ERR_NOMEM. */
struct pattern_scan {
    size_t at, last_end;
    bool any; /* last_end holds */
};
int pattern_next(const struct pattern *p, const char *text, size_t len, struct pattern_scan *scan, size_t *ret_start, size_t *ret_end);
