/* A radix tree over token ids: what has been computed for which prefix. A node is a stretch of tokens with, per token, its decisions,
 * the KV slots it holds, and optionally its score (the token's own logprob given the prefix, and the best alternatives).
 * KV and scores are independent: matching KV never implies matching scores.
 *
 * A node's first n_kv tokens have their rows computed. The rest are pending (a sequence, the owner, is computing them) or, with no owner, a single
 * trailing token that was only scored. Nodes of a running sequence's path are pinned; a path always ends at a node's end, and splitting
 * a node keeps the lower half's identity, so pointers of running sequences stay good. Least recently used leaves are evicted first.
 *
 * With sharing off (--prefix-cache off), and for generated tokens, nodes are private: never found by a match, freed when left.
 * Used by the worker thread only. */
#pragma once
#include "common/err.h"
#include "engine/memory/route_bits.h"
#include "engine/memory/slots.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A copy of the router states of a prefix, in a slot of the state pool. */
struct tree_state {
    int at; /* tokens of the node that the prefix includes, 1..n_kv */
    int slot;
};

struct tree_node {
    struct tree_node *parent, *hash_next;
    struct tree_node *lru_newer, *lru_older; /* linked nodes only */
    const void *owner;
    bool linked; /* in the hash of children and in the LRU list */
    int n_children, pins;
    int n, cap;              /* tokens */
    int n_kv;                /* leading tokens whose rows are computed */
    struct tree_node *below; /* scratch of tree_append: the next node of a path */
    int32_t *tokens;         /* [n] */
    uint8_t *route;          /* [n_kv, bits->n_bytes] decisions, packed (route_bits.h) */
    int *slots;              /* [n_slots] token by token, and within a token by ascending layer */
    int n_slots, cap_slots;
    struct tree_state *states; /* [n_states] by ascending `at` */
    int n_states, cap_states;
    int score_k;      /* alternatives that fit beside a score; 0: no scores yet */
    uint8_t *has_top; /* [cap] how many alternatives token i has; 0: no score */
    float *lp;        /* [cap] */
    int32_t *top_id;  /* [cap, score_k] */
    float *top_lp;
};

struct tree {
    struct slots *kv;              /* of rows of K and V; borrowed */
    struct slots *state_pool;      /* of copies of router states; borrowed; NULL: routers have none */
    const struct route_bits *bits; /* borrowed */
    bool shared;
    struct tree_node *root;
    struct tree_node **buckets; /* children by (parent, first token) */
    size_t n_buckets, n_linked;
    struct tree_node *newest, *oldest;
    size_t bytes, max_bytes;      /* host memory of linked nodes and its bound; leaves are evicted above it */
    int held_slots, pinned_slots; /* slots of all nodes, and of pinned ones */
    uint64_t evicted_tokens, tokens;
    int n_states; /* copies of router states held by nodes */
};

/* A sequence's place in the tree. */
struct tree_path {
    const void *owner;              /* of the pending tokens that the sequence computes: the last ones of the path */
    struct tree_node *leaf;         /* deepest node of the path */
    int n_linked;                   /* leading tokens of the sequence that lie on the path */
    struct tree_node *private_leaf; /* generated tokens; child of leaf */
};

int tree_init(struct tree *t, struct slots *kv, struct slots *state_pool, const struct route_bits *bits, bool shared, size_t max_bytes);
void tree_done(struct tree *t); /* no path may be in use */

/* How many leading tokens have their rows computed; -1 when another sequence is computing the next row that this one needs
 * (rows 0 .. n_rows-1), so that waiting for it saves the work: *ret_blocked then says after how many tokens, *ret_owner who it is.
 * Changes nothing. */
int tree_probe(const struct tree *t, const int32_t *tokens, int n, int n_rows, int *ret_blocked, const void **ret_owner);

/* How many leading tokens are there, computed or being computed by `through`; -1: the next one another is computing. Changes nothing. */
int tree_probe_through(const struct tree *t, const int32_t *tokens, int n, const void *through);

/* Enters a sequence: pins the matched path, adds what is missing as pending tokens of `owner`. ERR_NOMEM leaves the tree as it was
 * (but for harmless splits). Where tree_probe said -1 the sequence shares what is computed and
 * keeps the rest to itself. through, not NULL: where tree_probe_through did not say -1, it shares what `through` is computing as well.
 * If `through` leaves before that is computed, so must the sequence before another one enters. *ret_n_kv: leading tokens with computed rows. */
int tree_enter(struct tree *t, const void *owner, const void *through, const int32_t *tokens, int n, int n_rows, struct tree_path *ret,
               int *ret_n_kv);

/* The next n tokens of the path have been computed: their decisions [n, bits->n_bytes] and slots (token by token, and within a token by
 * ascending layer) pass to the tree. They must be pending on the path, or, past its end, generated ones. Returns for how many there was memory;
 * the slots of the others remain the caller's. */
int tree_append(struct tree *t, struct tree_path *p, const int32_t *tokens, int n, const uint8_t *route, const int *slots);

/* Unpins the path, drops what was never computed, frees private nodes. */
void tree_leave(struct tree *t, struct tree_path *p);

/* Walks a path's tokens [0, n) with KV from the leaf up: calls f for each node with the position of its first token. */
void tree_walk_up(const struct tree_path *p, void (*f)(void *arg, struct tree_node *node, int start), void *arg);

/* The score of the token at position `pos` of the path, with its k best alternatives. False: none stored. */
bool tree_get_score(const struct tree_path *p, int pos, int k, float *ret_lp, int32_t *ret_top_id, float *ret_top_lp);
/* Stores a score; without memory for it nothing happens. Positions past the path are ignored. */
void tree_put_score(struct tree *t, struct tree_path *p, int pos, int k, float lp, const int32_t *top_id, const float *top_lp);

/* Copies of router states (models whose routers have none never call these). A copy belongs to a position: it is what the prefix of so many tokens
 * left. The latest copy on the path at or before `pos`: its slot and position; -1 and 0: there is none, start from zeros. */
int tree_find_state(const struct tree_path *p, int pos, int *ret_pos);
/* Gives the path a copy at `pos`, 0 < pos <= computed rows. False (the slot stays the caller's): past the linked path, there is one already, or no
 * memory. */
bool tree_put_state(struct tree *t, struct tree_path *p, int pos, int slot);
/* A free slot of the state pool besides `kept` others, if need be by dropping copies of nodes that no running sequence uses, least recently used
 * first; -1: none. */
int tree_take_state(struct tree *t, int kept);

/* Evicts leaves until the pool has n free slots; the caller has made sure that this is possible. */
void tree_make_room(struct tree *t, int n_free_slots);
/* Slots that are free or can be freed. */
int tree_available(const struct tree *t);
void tree_clear(struct tree *t); /* drops every unpinned node */
