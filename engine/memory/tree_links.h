/* How the nodes of the prefix tree are found from each other: children by (parent, first token) in one hash, and all linked nodes in a list by last
 * use, in which a parent is always newer than its children, so that the oldest unpinned node is a leaf. Private to the tree. */
#pragma once
#include "engine/memory/tree.h"

/* The child whose first token this is; NULL: there is none. */
struct tree_node *tree_links_find(const struct tree *t, const struct tree_node *parent, int32_t token);
void tree_links_add(struct tree *t, struct tree_node *n);    /* below n->parent, as the newest */
void tree_links_remove(struct tree *t, struct tree_node *n); /* n->tokens[0] is still there */
/* `upper`, just cut from the front of `lower`, takes lower's place and becomes its parent. */
void tree_links_insert_above(struct tree *t, struct tree_node *upper, struct tree_node *lower);
/* Makes the path from the leaf up to the root the newest. */
void tree_links_touch(struct tree *t, struct tree_node *leaf);
