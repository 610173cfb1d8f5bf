/* The arrays of a prefix tree node: growth, rows, scores, cutting. Knows nothing of where a node hangs. Private to the tree.
 * Every function keeps t->bytes; on ERR_NOMEM (or NULL) the node is as it was. */
#pragma once
#include "engine/memory/tree.h"

struct tree_node *tree_node_new(struct tree *t, const int32_t *tokens, int n); /* n >= 1; all pending */
void tree_node_free(struct tree *t, struct tree_node *n);                      /* the slots must have been given back */
int tree_node_push_token(struct tree *t, struct tree_node *n, int32_t token);
/* The rows of the next n_rows tokens are computed: bits and slots as tree_append takes them. Returns how many slots they have. */
int tree_node_push_rows(struct tree *t, struct tree_node *n, int n_rows, const uint8_t *route, const int *slots);
/* Room for scores with k alternatives each; old scores are kept. */
int tree_node_fit_scores(struct tree *t, struct tree_node *n, int k);
/* A new node with the first `at` tokens (0 < at < n), their rows, slots and scores; they leave `lower`. */
struct tree_node *tree_node_cut_front(struct tree *t, struct tree_node *lower, int at);
/* Adds a copy of router states after the node's first `at` tokens; there is none yet. */
int tree_node_put_state(struct tree *t, struct tree_node *n, int at, int slot);
/* Gives the slots of all its copies back. */
void tree_node_drop_states(struct tree *t, struct tree_node *n);
