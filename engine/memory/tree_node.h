/* The arrays of a prefix tree node: growth, rows, scores, cutting. Knows nothing of where a node hangs. Private to the tree.
 * Every function keeps t->bytes; on ERR_NOMEM (or NULL) the node is as it was. */
#pragma once
#include "engine/memory/prefix_tree.h"

struct tree_node *node_new(struct prefix_tree *t, const int32_t *tokens, int n); /* n >= 1; all pending */
void node_free(struct prefix_tree *t, struct tree_node *n);                      /* the slots must have been given back */
int node_push_token(struct prefix_tree *t, struct tree_node *n, int32_t token);
/* The rows of the next n_rows tokens are computed: bits and slots as tree_append takes them. Returns how many slots they have. */
int node_push_rows(struct prefix_tree *t, struct tree_node *n, int n_rows, const uint8_t *route, const int *slots);
/* Room for scores with k alternatives each; old scores are kept. */
int node_fit_scores(struct prefix_tree *t, struct tree_node *n, int k);
/* A new node with the first `at` tokens (0 < at < n), their rows, slots and scores; they leave `lower`. */
struct tree_node *node_cut_front(struct prefix_tree *t, struct tree_node *lower, int at);
