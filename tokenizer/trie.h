/* Byte strings that are looked for at a place in a text: all that begin there, from the shortest to the longest. */
#pragma once
#include "common/err.h"
#include <stddef.h>
#include <stdint.h>

struct trie_node {
    int32_t first_child, next; /* next: the sibling; -1: none */
    int32_t value;             /* -1: no string ends here */
    unsigned char byte;
};

struct trie {
    struct trie_node *nodes;
    size_t n, cap;
    int32_t roots[256]; /* -1: no string begins so */
};

void trie_init(struct trie *t);
void trie_done(struct trie *t);
/* Empty strings are ignored; of equal ones the first counts. *ret_known (may be NULL): the value of an equal string that was
 * there already, else -1. 0 or ERR_NOMEM. */
int trie_add(struct trie *t, const char *s, size_t len, int32_t value, int32_t *ret_known);

/* A walk from one place: zero-initialise `at` with the place in text[0..len) and node with TRIE_START. Each call finds the next
 * longer string; its end is walk->at, its value is returned, -1 when there is none left. */
#define TRIE_START (-2)
struct trie_walk {
    size_t at;
    int32_t node;
};
int32_t trie_next(const struct trie *t, const char *text, size_t len, struct trie_walk *walk);
