/* Stop strings on decoded output. The text grows token by token; a stop string may begin in one token and end in another. */
#pragma once
#include "common/buf.h"
#include <stdbool.h>
#include <stddef.h>

#define STOP_MAX_STRINGS 4096
#define STOP_MAX_BYTES 4096 /* of one string */

struct stop_set {
    const char **strings; /* [n], none empty; borrowed, as are the arrays */
    size_t *lens;         /* [n] bytes */
    size_t n, longest;
    bool first[256]; /* bytes that begin a string */
    bool keep;       /* the string that ends the text stays in it */
};

/* The text of one generation. */
struct stop_text {
    const struct stop_set *set; /* borrowed; may be empty */
    struct buf text;
    size_t cut; /* bytes of text that count, once hit: those before the stop string that begins first, or with it (set->keep) */
    bool hit;
    bool deaf;   /* no stop string may end in what is added now */
    size_t held; /* where the first stop string that the text may still complete begins; it never moves back */
};

/* Room for the string must be in set->strings and set->lens. */
void stop_set_add(struct stop_set *set, const char *s, size_t len);

void stop_text_init(struct stop_text *t, const struct stop_set *set, size_t max_bytes);
void stop_text_done(struct stop_text *t);

/* Appends what one token adds. 1: a stop string is complete (hit is set, nothing more may be added), 0: go on, or buf_append's error. */
int stop_text_add(struct stop_text *t, const char *bytes, size_t n);

/* Bytes that no later token can take back: before the cut, or what can neither begin a stop string nor is an unfinished UTF-8
 * character. `ended`: no token follows. */
size_t stop_text_settled(struct stop_text *t, bool ended);
