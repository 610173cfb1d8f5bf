/* Two ways to join the lowest-ranked pair until none is left: by looking at all pairs each time (short words), and by
 * a heap over a linked list (n log n, so that a hostile text without word borders costs no more than its length). */
#include "tokenizer/bpe_merge.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct pairs { /* of the symbols i and i + 1; rank INT_MAX: they do not merge */
    int32_t rank[BPE_FEW], id[BPE_FEW];
};

static void look_up(const struct bpe *b, const int32_t *sym, struct pairs *p, size_t i)
{
    const struct bpe_merge *m = bpe_find_merge(b, sym[i], sym[i + 1]);
    p->rank[i] = m ? m->rank : INT_MAX;
    p->id[i] = m ? m->id : -1;
}

int bpe_merge_few(const struct bpe *b, int32_t *sym, size_t *n)
{
    struct pairs p;
    size_t count = *n;
    for (size_t i = 0; i + 1 < count; i++)
        look_up(b, sym, &p, i);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (p.rank[i] < p.rank[best])
                best = i;
        if (p.rank[best] == INT_MAX)
            break;
        sym[best] = p.id[best];
        size_t tail = count - best - 2; /* symbols behind the pair */
        memmove(sym + best + 1, sym + best + 2, tail * sizeof(*sym));
        memmove(p.rank + best, p.rank + best + 1, tail * sizeof(*p.rank));
        memmove(p.id + best, p.id + best + 1, tail * sizeof(*p.id));
        count--;
        if (tail > 0)
            look_up(b, sym, &p, best);
        if (best > 0)
            look_up(b, sym, &p, best - 1);
    }
    *n = count;
    return 0;
}

/* ---- the heap way ---- */

struct candidate { /* a pair seen at `pos`; stale once either side has changed */
    int32_t rank;
    uint32_t pos;
    int32_t left, right, id;
};

struct links {
    uint32_t prev, next; /* NONE at the ends */
};

#define NONE UINT32_MAX

struct merger {
    const struct bpe *b;
    int32_t *sym; /* -1: joined to the symbol before it */
    struct links *links;
    struct candidate *heap; /* [3 * n]: each of n - 1 merges adds at most two to the first n - 1 */
    size_t n_heap;
};

static bool before(const struct candidate *x, const struct candidate *y)
{
    return x->rank != y->rank ? x->rank < y->rank : x->pos < y->pos;
}

static void push(struct merger *m, uint32_t pos)
{
    uint32_t right = pos == NONE ? NONE : m->links[pos].next;
    const struct bpe_merge *found = right == NONE ? NULL : bpe_find_merge(m->b, m->sym[pos], m->sym[right]);
    if (!found)
        return;
    struct candidate c = {found->rank, pos, m->sym[pos], m->sym[right], found->id};
    size_t i = m->n_heap++;
    for (; i > 0 && before(&c, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = c;
}

static struct candidate pop(struct merger *m)
{
    struct candidate top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

static void join(struct merger *m, const struct candidate *c)
{
    uint32_t right = m->links[c->pos].next;
    if (m->sym[c->pos] != c->left || right == NONE || m->sym[right] != c->right)
        return;
    m->sym[c->pos] = c->id;
    m->sym[right] = -1;
    uint32_t after = m->links[right].next;
    m->links[c->pos].next = after;
    if (after != NONE)
        m->links[after].prev = c->pos;
    push(m, m->links[c->pos].prev);
    push(m, c->pos);
}

int bpe_merge_many(const struct bpe *b, int32_t *sym, size_t *n)
{
    struct merger m = {.b = b, .sym = sym, .links = malloc(*n * sizeof(*m.links)), .heap = malloc(3 * *n * sizeof(*m.heap))};
    int r = m.links && m.heap && *n < NONE ? 0 : ERR_NOMEM;
    if (r < 0)
        goto done;
    for (size_t i = 0; i < *n; i++)
        m.links[i] = (struct links){i ? (uint32_t)i - 1 : NONE, i + 1 < *n ? (uint32_t)i + 1 : NONE};
    for (size_t i = 0; i < *n; i++)
        push(&m, (uint32_t)i);
    while (m.n_heap > 0) {
        struct candidate c = pop(&m);
        join(&m, &c);
    }
    size_t kept = 0;
    for (size_t i = 0; i < *n; i++)
        if (sym[i] >= 0)
            sym[kept++] = sym[i];
    *n = kept;
done:
    free(m.links);
    free(m.heap);
    return r;
}
