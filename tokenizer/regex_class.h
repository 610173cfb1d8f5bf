/* Sets of characters in Oniguruma's syntax: escapes that mean one, and classes in brackets; private to the dialect. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where a walk down an expression stands. */
struct regex_walk {
    const char *s;
    size_t len, at;
    bool ignore_case;
    char last_letter; /* what a letter that follows would stand beside; 0: none */
    struct buf *out;
    struct err *err;
};

/* Members as PCRE2 writes them in a class, and the categories whose newest characters belong to them. */
struct regex_set {
    char members[96];
    const char *categories[4]; /* NULL at the end */
    bool negated;
    bool caseless; /* holds no letter, so that it is the same without regard to case */
};

extern const struct regex_set regex_lone_word; /* \w outside of a class */

int regex_refuse(const struct regex_walk *w, const char *what);
int regex_refuse_escape(const struct regex_walk *w);
bool regex_next_is(const struct regex_walk *w, const char *text);

/* An escape that means a set: 1 and behind it; 0 and still in front of it where it means something else. */
int regex_set_read(struct regex_walk *w, bool in_class, struct regex_set *ret);
int regex_set_put_class(const struct regex_set *set, struct buf *out); /* [members] or [^members] */

/* Escapes of punctuation, which stand for themselves. */
bool regex_is_plain_escape(char c);
/* Nothing else equals it without regard to case, alone or together with others. */
bool regex_is_caseless(uint32_t cp);

/* The walk stands at "["; appends an expression for one character of the class, and stands behind "]". */
int regex_class(struct regex_walk *w, int depth);
