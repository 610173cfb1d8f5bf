/* Nodes with lists of children; a table instead of a list at the root. */
#include "tokenizer/trie.h"
#include <stdlib.h>
#include <string.h>

void trie_init(struct trie *t)
{
    *t = (struct trie){0};
    memset(t->roots, 0xff, sizeof(t->roots));
}

void trie_done(struct trie *t)
{
    free(t->nodes);
    trie_init(t);
}

static int32_t new_node(struct trie *t, unsigned char byte, int32_t next)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        struct trie_node *nodes = cap <= INT32_MAX ? realloc(t->nodes, cap * sizeof(*nodes)) : NULL;
        if (!nodes)
            return -1;
        t->nodes = nodes;
        t->cap = cap;
    }
    t->nodes[t->n] = (struct trie_node){.first_child = -1, .next = next, .value = -1, .byte = byte};
    return (int32_t)t->n++;
}

static int32_t child_of(const struct trie *t, int32_t node, unsigned char byte)
{
    int32_t c = t->nodes[node].first_child;
    while (c >= 0 && t->nodes[c].byte != byte)
        c = t->nodes[c].next;
    return c;
}

int trie_add(struct trie *t, const char *s, size_t len, int32_t value, int32_t *ret_known)
{
    int32_t node = -1;
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)s[i];
        int32_t next = i == 0 ? t->roots[byte] : child_of(t, node, byte);
        if (next < 0) {
            next = new_node(t, byte, i == 0 ? -1 : t->nodes[node].first_child);
            if (next < 0)
                return ERR_NOMEM;
            *(i == 0 ? &t->roots[byte] : &t->nodes[node].first_child) = next;
        }
        node = next;
    }
    if (ret_known)
        *ret_known = node >= 0 ? t->nodes[node].value : -1;
    if (node >= 0 && t->nodes[node].value < 0)
        t->nodes[node].value = value;
    return 0;
}

int32_t trie_next(const struct trie *t, const char *text, size_t len, struct trie_walk *walk)
{
    while (walk->at < len && walk->node != -1) {
        unsigned char byte = (unsigned char)text[walk->at];
        walk->node = walk->node == TRIE_START ? t->roots[byte] : child_of(t, walk->node, byte);
        walk->at++;
        if (walk->node >= 0 && t->nodes[walk->node].value >= 0)
            return t->nodes[walk->node].value;
    }
    return -1;
}
