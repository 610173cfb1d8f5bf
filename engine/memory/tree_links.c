/* The hash of children and the list by last use. */
#include "engine/memory/tree_links.h"
#include <stdlib.h>

/* ---- children by (parent, first token) -------------------------------------------------------------------- */
static struct tree_node **bucket_of(const struct tree *t, const struct tree_node *parent, int32_t token)
{
    uint64_t h = ((uint64_t)(uintptr_t)parent >> 4) * 0x9e3779b97f4a7c15u ^ (uint64_t)(uint32_t)token * 0xc2b2ae3d27d4eb4fu;
    h ^= h >> 32;
    return &t->buckets[(size_t)(h * 0x9e3779b97f4a7c15u >> 20) & (t->n_buckets - 1)];
}

struct tree_node *tree_links_find(const struct tree *t, const struct tree_node *parent, int32_t token)
{
    struct tree_node *c = *bucket_of(t, parent, token);
    while (c && (c->parent != parent || c->tokens[0] != token))
        c = c->hash_next;
    return c;
}

static void hash_add(struct tree *t, struct tree_node *node)
{
    struct tree_node **b = bucket_of(t, node->parent, node->tokens[0]);
    node->hash_next = *b;
    *b = node;
}

/* first: the token by which the node was added. */
static void hash_remove(struct tree *t, struct tree_node *node, int32_t first)
{
    struct tree_node **b = bucket_of(t, node->parent, first);
    while (*b != node)
        b = &(*b)->hash_next;
    *b = node->hash_next;
}

/* Doubles the buckets when chains get long; without memory the chains just get longer. */
static void hash_grow(struct tree *t)
{
    if (t->n_linked < 2 * t->n_buckets)
        return;
    struct tree_node **grown = calloc(2 * t->n_buckets, sizeof(*grown));
    if (!grown)
        return;
    free(t->buckets);
    t->buckets = grown;
    t->n_buckets *= 2;
    for (struct tree_node *n = t->newest; n; n = n->lru_older)
        hash_add(t, n);
}

/* ---- the list by last use ------------------------------------------------------------------------------------ */
static void list_unlink(struct tree *t, struct tree_node *n)
{
    *(n->lru_newer ? &n->lru_newer->lru_older : &t->newest) = n->lru_older;
    *(n->lru_older ? &n->lru_older->lru_newer : &t->oldest) = n->lru_newer;
}

static void list_link_newest(struct tree *t, struct tree_node *n)
{
    n->lru_newer = NULL;
    n->lru_older = t->newest;
    *(t->newest ? &t->newest->lru_newer : &t->oldest) = n;
    t->newest = n;
}

static void list_link_above(struct tree *t, struct tree_node *n, struct tree_node *below)
{
    n->lru_older = below;
    n->lru_newer = below->lru_newer;
    *(n->lru_newer ? &n->lru_newer->lru_older : &t->newest) = n;
    below->lru_newer = n;
}

/* ---- both ------------------------------------------------------------------------------------------------------- */
void tree_links_add(struct tree *t, struct tree_node *n)
{
    n->linked = true;
    hash_grow(t);
    hash_add(t, n);
    list_link_newest(t, n);
    n->parent->n_children++;
    t->n_linked++;
}

void tree_links_remove(struct tree *t, struct tree_node *n)
{
    hash_remove(t, n, n->tokens[0]);
    list_unlink(t, n);
    n->parent->n_children--;
    t->n_linked--;
}

void tree_links_insert_above(struct tree *t, struct tree_node *upper, struct tree_node *lower)
{
    hash_remove(t, lower, upper->tokens[0]); /* cutting changed lower's first token */
    upper->parent = lower->parent;
    upper->linked = true;
    upper->n_children = 1;
    lower->parent = upper;
    t->n_linked++;
    hash_add(t, upper);
    hash_add(t, lower);
    list_link_above(t, upper, lower);
}

void tree_links_touch(struct tree *t, struct tree_node *leaf)
{
    for (struct tree_node *n = leaf; n != t->root; n = n->parent) {
        if (!n->linked)
            continue;
        list_unlink(t, n);
        list_link_newest(t, n);
    }
}
