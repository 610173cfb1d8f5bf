/* Memory of one node. */
#include "engine/memory/tree_node.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t tree_node_bytes(const struct tree *t, const struct tree_node *n)
{
    size_t cap = (size_t)n->cap, b = sizeof(*n) + cap * (sizeof(int32_t) + (size_t)t->bits->n_bytes) + (size_t)n->cap_slots * sizeof(int) +
                                     (size_t)n->cap_states * sizeof(*n->states);
    if (n->score_k)
        b += cap * (1 + sizeof(float) + (size_t)n->score_k * (sizeof(int32_t) + sizeof(float)));
    return b;
}

struct tree_node *tree_node_new(struct tree *t, const int32_t *tokens, int n)
{
    struct tree_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->n = node->cap = n;
    node->tokens = malloc((size_t)n * sizeof(*node->tokens));
    node->route = malloc((size_t)n * (size_t)t->bits->n_bytes);
    t->bytes += tree_node_bytes(t, node);
    if (!node->tokens || !node->route) {
        tree_node_free(t, node);
        return NULL;
    }
    memcpy(node->tokens, tokens, (size_t)n * sizeof(*tokens));
    return node;
}

void tree_node_free(struct tree *t, struct tree_node *n)
{
    t->bytes -= tree_node_bytes(t, n);
    free(n->tokens);
    free(n->route);
    free(n->slots);
    free(n->states);
    free(n->has_top);
    free(n->lp);
    free(n->top_id);
    free(n->top_lp);
    free(n);
}

/* realloc that leaves *p alone on failure. */
static int resize(void *p, size_t n, size_t size)
{
    void *old, *grown;
    memcpy(&old, p, sizeof(old));
    grown = realloc(old, n * size);
    if (!grown)
        return ERR_NOMEM;
    memcpy(p, &grown, sizeof(grown));
    return 0;
}

int tree_node_push_token(struct tree *t, struct tree_node *n, int32_t token)
{
    assert(!n->score_k); /* only generated tokens are pushed, and those have no scores */
    if (n->n == n->cap) {
        size_t before = tree_node_bytes(t, n), cap = 2 * (size_t)n->cap;
        if (resize(&n->tokens, cap, sizeof(*n->tokens)) < 0 || resize(&n->route, cap, (size_t)t->bits->n_bytes) < 0)
            return ERR_NOMEM;
        n->cap = (int)cap;
        t->bytes += tree_node_bytes(t, n) - before;
    }
    n->tokens[n->n++] = token;
    return 0;
}

int tree_node_push_rows(struct tree *t, struct tree_node *n, int n_rows, const uint8_t *route, const int *slots)
{
    int n_slots = route_bits_count_kv(t->bits, route, n_rows);
    if (n->n_slots + n_slots > n->cap_slots) {
        size_t before = tree_node_bytes(t, n);
        /* the first rows tell about how many slots the others need */
        int cap = n->n_slots ? n->n_slots + n->n_slots / 2 + n_slots : (n_slots + n_rows - 1) / n_rows * (n->n - n->n_kv);
        if (resize(&n->slots, (size_t)cap, sizeof(*n->slots)) < 0)
            return ERR_NOMEM;
        n->cap_slots = cap;
        t->bytes += tree_node_bytes(t, n) - before;
    }
    if (n_slots)
        memcpy(n->slots + n->n_slots, slots, (size_t)n_slots * sizeof(*slots));
    memcpy(n->route + (size_t)n->n_kv * (size_t)t->bits->n_bytes, route, (size_t)n_rows * (size_t)t->bits->n_bytes);
    n->n_slots += n_slots;
    n->n_kv += n_rows;
    return n_slots;
}

int tree_node_fit_scores(struct tree *t, struct tree_node *n, int k)
{
    if (k <= n->score_k)
        return 0;
    size_t cap = (size_t)n->cap, sk = (size_t)k, before = tree_node_bytes(t, n);
    int32_t *top_id = malloc(cap * sk * sizeof(*top_id));
    float *top_lp = malloc(cap * sk * sizeof(*top_lp));
    uint8_t *has_top = n->score_k ? n->has_top : calloc(cap, 1);
    float *lp = n->score_k ? n->lp : malloc(cap * sizeof(*lp));
    if (!top_id || !top_lp || !has_top || !lp) {
        free(top_id);
        free(top_lp);
        if (!n->score_k) {
            free(has_top);
            free(lp);
        }
        return ERR_NOMEM;
    }
    for (int i = 0; i < n->n && n->score_k; i++) {
        memcpy(top_id + (size_t)i * sk, n->top_id + (size_t)i * (size_t)n->score_k, (size_t)n->score_k * sizeof(*top_id));
        memcpy(top_lp + (size_t)i * sk, n->top_lp + (size_t)i * (size_t)n->score_k, (size_t)n->score_k * sizeof(*top_lp));
    }
    free(n->top_id);
    free(n->top_lp);
    n->top_id = top_id;
    n->top_lp = top_lp;
    n->has_top = has_top;
    n->lp = lp;
    n->score_k = k;
    t->bytes += tree_node_bytes(t, n) - before;
    return 0;
}

int tree_node_put_state(struct tree *t, struct tree_node *n, int at, int slot)
{
    if (n->n_states == n->cap_states) {
        size_t before = tree_node_bytes(t, n), cap = n->cap_states ? 2 * (size_t)n->cap_states : 2;
        if (resize(&n->states, cap, sizeof(*n->states)) < 0)
            return ERR_NOMEM;
        n->cap_states = (int)cap;
        t->bytes += tree_node_bytes(t, n) - before;
    }
    int i = n->n_states++;
    for (; i > 0 && n->states[i - 1].at > at; i--)
        n->states[i] = n->states[i - 1];
    n->states[i] = (struct tree_state){at, slot};
    t->n_states++;
    return 0;
}

void tree_node_drop_states(struct tree *t, struct tree_node *n)
{
    for (int i = 0; i < n->n_states; i++)
        slots_give(t->state_pool, &n->states[i].slot, 1);
    t->n_states -= n->n_states;
    n->n_states = 0;
}

/* The copies of the first `at` tokens go over to `upper`; there is room for them. */
static void cut_states(struct tree_node *upper, struct tree_node *lower, int at)
{
    int n = 0;
    while (n < lower->n_states && lower->states[n].at <= at)
        n++;
    for (int i = 0; i < n; i++)
        upper->states[upper->n_states++] = lower->states[i];
    for (int i = n; i < lower->n_states; i++)
        lower->states[i - n] = (struct tree_state){lower->states[i].at - at, lower->states[i].slot};
    lower->n_states -= n;
}

static void copy_front_scores(struct tree_node *to, const struct tree_node *from, int n)
{
    size_t k = (size_t)from->score_k, m = (size_t)n;
    memcpy(to->has_top, from->has_top, m);
    memcpy(to->lp, from->lp, m * sizeof(*to->lp));
    memcpy(to->top_id, from->top_id, m * k * sizeof(*to->top_id));
    memcpy(to->top_lp, from->top_lp, m * k * sizeof(*to->top_lp));
}

static void drop_front(struct tree *t, struct tree_node *n, int at, int rows, int slots)
{
    size_t left = (size_t)(n->n - at), cut = (size_t)at, k = (size_t)n->score_k, rb = (size_t)t->bits->n_bytes;
    memmove(n->tokens, n->tokens + at, left * sizeof(*n->tokens));
    memmove(n->route, n->route + (size_t)rows * rb, (size_t)(n->n_kv - rows) * rb);
    if (n->n_slots > slots)
        memmove(n->slots, n->slots + slots, (size_t)(n->n_slots - slots) * sizeof(*n->slots));
    if (k) {
        memmove(n->has_top, n->has_top + cut, left);
        memmove(n->lp, n->lp + cut, left * sizeof(*n->lp));
        memmove(n->top_id, n->top_id + cut * k, left * k * sizeof(*n->top_id));
        memmove(n->top_lp, n->top_lp + cut * k, left * k * sizeof(*n->top_lp));
    }
    n->n -= at;
    n->n_kv -= rows;
    n->n_slots -= slots;
}

struct tree_node *tree_node_cut_front(struct tree *t, struct tree_node *lower, int at)
{
    int rows = at < lower->n_kv ? at : lower->n_kv, slots = route_bits_count_kv(t->bits, lower->route, rows);
    struct tree_node *upper = tree_node_new(t, lower->tokens, at);
    if (!upper)
        return NULL;
    int *own_slots = malloc((slots ? (size_t)slots : 1) * sizeof(*own_slots));
    struct tree_state *own_states = lower->n_states ? malloc((size_t)lower->n_states * sizeof(*own_states)) : NULL;
    if (!own_slots || (lower->n_states && !own_states) || (lower->score_k && tree_node_fit_scores(t, upper, lower->score_k) < 0)) {
        free(own_slots);
        free(own_states);
        tree_node_free(t, upper);
        return NULL;
    }
    size_t before = tree_node_bytes(t, upper);
    upper->slots = own_slots;
    upper->cap_slots = slots;
    upper->states = own_states;
    upper->cap_states = lower->n_states;
    t->bytes += tree_node_bytes(t, upper) - before;
    upper->n_slots = slots;
    upper->n_kv = rows;
    memcpy(upper->route, lower->route, (size_t)rows * (size_t)t->bits->n_bytes);
    if (slots)
        memcpy(upper->slots, lower->slots, (size_t)slots * sizeof(*upper->slots));
    if (lower->score_k)
        copy_front_scores(upper, lower, at);
    cut_states(upper, lower, at);
    drop_front(t, lower, at, rows, slots);
    return upper;
}
