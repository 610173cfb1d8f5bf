/* The radix tree: matching, splitting, eviction. The arrays of a node are tree_node.c's business, its links to other nodes tree_links.c's. */
#include "engine/memory/tree.h"
#include "engine/memory/tree_links.h"
#include "engine/memory/tree_node.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- nodes in the tree ------------------------------------------------------------------------------------- */
/* sorted[n_slots]: the node's slots layer by layer. at: [n_kv] scratch. */
static void sort_slots(const struct tree *t, const struct tree_node *n, int *sorted, int *at)
{
    int layers = t->bits->n_layers, used = 0;
    if (n->n_slots == n->n_kv * layers) {
        for (int i0 = 0; i0 < n->n_kv; i0 += 16) /* in blocks that the cache holds */
            for (int l = 0; l < layers; l++)
                for (int i = i0; i < n->n_kv && i < i0 + 16; i++)
                    sorted[(size_t)l * (size_t)n->n_kv + (size_t)i] = n->slots[(size_t)i * (size_t)layers + (size_t)l];
        return;
    }
    for (int i = 0; i < n->n_kv; i++) {
        at[i] = used;
        used += route_bits_count_kv(t->bits, n->route + (size_t)i * (size_t)t->bits->n_bytes, 1);
    }
    used = 0;
    for (int l = 0; l < layers; l++)
        for (int i = 0; i < n->n_kv; i++)
            if (route_bits_has_kv(t->bits, n->route + (size_t)i * (size_t)t->bits->n_bytes, l))
                sorted[used++] = n->slots[at[i]++];
}

/* Gives a node's slots back so that a layer's follow each other: who takes them reads and writes them fastest that way. */
static void give_slots(struct tree *t, const struct tree_node *n)
{
    int *scratch = malloc(((size_t)n->n_slots + (size_t)n->n_kv) * sizeof(int));
    if (scratch)
        sort_slots(t, n, scratch, scratch + n->n_slots);
    slots_give(t->kv, scratch ? scratch : n->slots, n->n_slots);
    free(scratch);
}

/* Takes a childless node out and frees it with its slots. */
static void remove_node(struct tree *t, struct tree_node *n)
{
    assert(!n->n_children && !n->pins);
    if (n->linked) {
        tree_links_remove(t, n);
        t->tokens -= (uint64_t)n->n;
    }
    give_slots(t, n);
    tree_node_drop_states(t, n);
    t->held_slots -= n->n_slots;
    tree_node_free(t, n);
}

static void pin(struct tree *t, struct tree_node *n)
{
    if (!n->pins++)
        t->pinned_slots += n->n_slots;
}

static void unpin(struct tree *t, struct tree_node *n)
{
    if (!--n->pins)
        t->pinned_slots -= n->n_slots;
}

/* Splits a linked node so that its first `at` tokens become a parent of it. The node keeps its identity as the lower half. NULL: no memory. */
static struct tree_node *split(struct tree *t, struct tree_node *lower, int at)
{
    struct tree_node *upper = tree_node_cut_front(t, lower, at);
    if (!upper)
        return NULL;
    upper->pins = lower->pins;
    upper->owner = upper->n_kv < upper->n ? lower->owner : NULL;
    tree_links_insert_above(t, upper, lower);
    return upper;
}

/* ---- matching ----------------------------------------------------------------------------------------------- */
struct match {
    struct tree_node *node; /* where the match ends */
    int offset;             /* tokens of node that match, 1..n; root: 0 */
    int n_tokens;           /* tokens matched in all */
    int n_kv;               /* of them, leading ones with computed rows */
    bool in_progress;       /* the match runs into tokens that another sequence is computing */
};

/* through: NULL, or a sequence of which tokens that it is computing match like others. */
static struct match match_tokens(const struct tree *t, const int32_t *tokens, int n, const void *through)
{
    struct match m = {.node = t->root};
    while (m.n_tokens < n) {
        struct tree_node *c = tree_links_find(t, m.node, tokens[m.n_tokens]);
        if (!c)
            return m;
        int limit = n - m.n_tokens < c->n ? n - m.n_tokens : c->n, i = 1;
        while (i < limit && c->tokens[i] == tokens[m.n_tokens + i])
            i++;
        if (m.n_kv == m.n_tokens)
            m.n_kv += i < c->n_kv ? i : c->n_kv;
        m.in_progress = i > c->n_kv && c->owner && c->owner != through;
        m.node = c;
        m.offset = i;
        m.n_tokens += i;
        if (i < c->n || m.in_progress)
            return m;
    }
    return m;
}

int tree_probe(const struct tree *t, const int32_t *tokens, int n, int n_rows, int *ret_blocked, const void **ret_owner)
{
    struct match m = match_tokens(t, tokens, n, NULL);
    if (!m.in_progress || m.n_kv >= n_rows)
        return m.n_kv;
    *ret_blocked = m.n_kv;
    *ret_owner = m.node->owner;
    return -1;
}

int tree_probe_through(const struct tree *t, const int32_t *tokens, int n, const void *through)
{
    struct match m = match_tokens(t, tokens, n, through);
    return m.in_progress ? -1 : m.n_tokens;
}

/* A new node for tokens that the owner will compute. */
static struct tree_node *add_pending(struct tree *t, struct tree_node *parent, const void *owner, const int32_t *tokens, int n, bool linked)
{
    struct tree_node *c = tree_node_new(t, tokens, n);
    if (!c)
        return NULL;
    c->parent = parent;
    c->owner = owner;
    if (linked) {
        tree_links_add(t, c);
        t->tokens += (uint64_t)n;
    }
    return c;
}

int tree_enter(struct tree *t, const void *owner, const void *through, const int32_t *tokens, int n, int n_rows, struct tree_path *p,
               int *ret_n_kv)
{
    struct match m = {.node = t->root};
    if (t->shared)
        m = match_tokens(t, tokens, n, through);
    *p = (struct tree_path){.leaf = t->root, .owner = owner};
    bool blocked = m.in_progress; /* the next token exists, but belongs to another sequence's pending part */
    if (blocked) {
        m.offset -= m.n_tokens - m.n_kv;
        m.n_tokens = m.n_kv;
        if (!m.offset) {
            m.node = m.node->parent;
            m.offset = m.node->n;
        }
    }
    if (m.offset < m.node->n && !(m.node = split(t, m.node, m.offset)))
        return ERR_NOMEM;
    struct tree_node *at = m.node, *child = NULL;
    if (m.n_tokens < n && !blocked) {
        child = add_pending(t, at, owner, tokens + m.n_tokens, n - m.n_tokens, t->shared);
        if (!child)
            return ERR_NOMEM;
    }
    if (at != t->root && at->n_kv < at->n && !at->owner && n_rows > m.n_kv)
        at->owner = owner;
    p->leaf = child ? child : at;
    p->n_linked = child ? n : m.n_tokens;
    for (struct tree_node *node = p->leaf; node != t->root; node = node->parent)
        pin(t, node);
    tree_links_touch(t, p->leaf);
    *ret_n_kv = m.n_kv;
    return 0;
}

/* The first of the nodes whose tokens the path's owner is to compute; `below` leads from it to the leaf. NULL: all are computed. */
static struct tree_node *first_pending(const struct tree_path *p)
{
    struct tree_node *first = NULL, *below = NULL;
    for (struct tree_node *node = p->leaf; node->owner == p->owner; node = node->parent) {
        node->below = below;
        first = node->n_kv < node->n ? node : first;
        below = node;
    }
    return first;
}

/* One that takes a generated token. NULL: no memory. */
static struct tree_node *private_node(struct tree *t, struct tree_path *p, int32_t token)
{
    if (p->private_leaf)
        return tree_node_push_token(t, p->private_leaf, token) < 0 ? NULL : p->private_leaf;
    p->private_leaf = add_pending(t, p->leaf, p, &token, 1, false);
    if (p->private_leaf)
        pin(t, p->private_leaf);
    return p->private_leaf;
}

int tree_append(struct tree *t, struct tree_path *p, const int32_t *tokens, int n, const uint8_t *route, const int *slots)
{
    struct tree_node *pending = first_pending(p);
    for (int done = 0, fits; done < n; done += fits) {
        struct tree_node *node = pending ? pending : private_node(t, p, tokens[done]);
        fits = !pending ? 1 : n - done < node->n - node->n_kv ? n - done : node->n - node->n_kv;
        int taken = node ? tree_node_push_rows(t, node, fits, route + (size_t)done * (size_t)t->bits->n_bytes, slots) : ERR_NOMEM;
        if (taken < 0)
            return done;
        assert(!memcmp(node->tokens + node->n_kv - fits, tokens + done, (size_t)fits * sizeof(*tokens)));
        slots += taken;
        t->held_slots += taken;
        t->pinned_slots += taken;
        if (pending && pending->n_kv == pending->n)
            pending = pending->below;
    }
    return n;
}

/* Of a node that nobody owns or uses, what was not computed goes, but for one trailing token that has a score. */
static void settle(struct tree *t, struct tree_node *n)
{
    int keep = n->n_kv + (n->n_kv < n->n && n->score_k && n->has_top[n->n_kv] ? 1 : 0);
    if (n->linked)
        t->tokens -= (uint64_t)(n->n - keep);
    n->n = keep;
    /* an emptied node must still be found by its first token, which stays in the array, until remove_node has unhashed it */
}

void tree_leave(struct tree *t, struct tree_path *p)
{
    if (!p->leaf)
        return;
    if (p->private_leaf) {
        unpin(t, p->private_leaf);
        remove_node(t, p->private_leaf);
    }
    tree_links_touch(t, p->leaf);
    for (struct tree_node *n = p->leaf, *parent; n != t->root; n = parent) {
        parent = n->parent;
        unpin(t, n);
        n->owner = n->owner == p->owner ? NULL : n->owner;
        if (n->owner || n->pins)
            continue;
        settle(t, n);
        if (!n->n || !n->linked)
            remove_node(t, n);
    }
    memset(p, 0, sizeof(*p));
    while (t->bytes > t->max_bytes && t->oldest && !t->oldest->pins) {
        t->evicted_tokens += (uint64_t)t->oldest->n;
        remove_node(t, t->oldest);
    }
}

void tree_walk_up(const struct tree_path *p, void (*f)(void *arg, struct tree_node *node, int start), void *arg)
{
    int end = p->n_linked;
    for (struct tree_node *n = p->leaf; n->parent; n = n->parent) {
        end -= n->n;
        f(arg, n, end);
    }
}

/* ---- scores ------------------------------------------------------------------------------------------------- */
static struct tree_node *node_at(const struct tree_path *p, int pos, int *ret_offset)
{
    if (pos >= p->n_linked)
        return NULL;
    int end = p->n_linked;
    struct tree_node *n = p->leaf;
    while (pos < end - n->n) {
        end -= n->n;
        n = n->parent;
    }
    *ret_offset = pos - (end - n->n);
    return n;
}

bool tree_get_score(const struct tree_path *p, int pos, int k, float *ret_lp, int32_t *ret_top_id, float *ret_top_lp)
{
    int i;
    const struct tree_node *n = node_at(p, pos, &i);
    if (!n || !n->score_k || n->has_top[i] < k)
        return false;
    *ret_lp = n->lp[i];
    memcpy(ret_top_id, n->top_id + (size_t)i * (size_t)n->score_k, (size_t)k * sizeof(*ret_top_id));
    memcpy(ret_top_lp, n->top_lp + (size_t)i * (size_t)n->score_k, (size_t)k * sizeof(*ret_top_lp));
    return true;
}

void tree_put_score(struct tree *t, struct tree_path *p, int pos, int k, float lp, const int32_t *top_id, const float *top_lp)
{
    int i;
    struct tree_node *n = t->shared ? node_at(p, pos, &i) : NULL;
    if (!n || (n->score_k && n->has_top[i] >= k) || tree_node_fit_scores(t, n, k) < 0)
        return;
    n->has_top[i] = (uint8_t)k;
    n->lp[i] = lp;
    memcpy(n->top_id + (size_t)i * (size_t)n->score_k, top_id, (size_t)k * sizeof(*top_id));
    memcpy(n->top_lp + (size_t)i * (size_t)n->score_k, top_lp, (size_t)k * sizeof(*top_lp));
}

/* ---- router states ------------------------------------------------------------------------------------------ */
int tree_find_state(const struct tree_path *p, int pos, int *ret_pos)
{
    int end = p->n_linked;
    for (struct tree_node *n = p->leaf; n && n->parent; n = n->parent) {
        end -= n->n;
        for (int i = n->n_states - 1; i >= 0; i--)
            if (end + n->states[i].at <= pos) {
                *ret_pos = end + n->states[i].at;
                return n->states[i].slot;
            }
    }
    *ret_pos = 0;
    return -1;
}

bool tree_put_state(struct tree *t, struct tree_path *p, int pos, int slot)
{
    int i, at;
    struct tree_node *n = t->shared && pos > 0 ? node_at(p, pos - 1, &i) : NULL;
    if (!n || i >= n->n_kv || (tree_find_state(p, pos, &at) >= 0 && at == pos))
        return false;
    return tree_node_put_state(t, n, i + 1, slot) >= 0;
}

/* Drops copies until an eighth of the pool and `kept` slots are free, so that the walk over the nodes is not made for every slot. */
static void drop_old_states(struct tree *t, int kept)
{
    for (struct tree_node *n = t->oldest; n && t->state_pool->n_free <= kept + t->state_pool->n / 8; n = n->lru_newer)
        if (!n->pins)
            tree_node_drop_states(t, n);
}

int tree_take_state(struct tree *t, int kept)
{
    int slot;
    if (t->state_pool->n_free <= kept && t->n_states)
        drop_old_states(t, kept);
    if (t->state_pool->n_free <= kept)
        return -1;
    slots_take(t->state_pool, 1, &slot);
    return slot;
}

/* ---- room --------------------------------------------------------------------------------------------------- */
int tree_available(const struct tree *t)
{
    return t->kv->n_free + t->held_slots - t->pinned_slots;
}

static void evict(struct tree *t, struct tree_node *n)
{
    t->evicted_tokens += (uint64_t)n->n;
    remove_node(t, n);
}

void tree_make_room(struct tree *t, int n_free_slots)
{
    struct tree_node *n = t->oldest;
    while (t->kv->n_free < n_free_slots && n) {
        struct tree_node *newer = n->lru_newer;
        if (!n->pins)
            evict(t, n);
        n = newer;
    }
    assert(t->kv->n_free >= n_free_slots);
}

void tree_clear(struct tree *t)
{
    for (struct tree_node *n = t->oldest, *newer; n; n = newer) {
        newer = n->lru_newer;
        if (!n->pins)
            evict(t, n);
    }
}

int tree_init(struct tree *t, struct slots *kv, struct slots *state_pool, const struct route_bits *bits, bool shared, size_t max_bytes)
{
    *t = (struct tree){.kv = kv, .state_pool = state_pool, .bits = bits, .shared = shared, .max_bytes = max_bytes, .n_buckets = 1024};
    t->buckets = calloc(t->n_buckets, sizeof(*t->buckets));
    t->root = calloc(1, sizeof(*t->root));
    if (t->buckets && t->root)
        return 0;
    tree_done(t);
    return ERR_NOMEM;
}

void tree_done(struct tree *t)
{
    if (t->root && t->buckets)
        tree_clear(t);
    free(t->buckets);
    free(t->root);
    memset(t, 0, sizeof(*t));
}
