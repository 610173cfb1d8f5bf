/* First-fit extents in a sorted list of holes. */
#include "engine/memory/extents.h"
#include "common/err.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int extents_init(struct extents *e, int64_t n)
{
    *e = (struct extents){.cap_holes = 16, .n_holes = n > 0};
    e->holes = malloc((size_t)e->cap_holes * sizeof(*e->holes));
    if (!e->holes) {
        *e = (struct extents){0};
        return ERR_NOMEM;
    }
    e->holes[0] = (struct extent){0, n};
    return 0;
}

void extents_done(struct extents *e)
{
    free(e->holes);
    memset(e, 0, sizeof(*e));
}

static void remove_hole(struct extents *e, int i)
{
    memmove(e->holes + i, e->holes + i + 1, (size_t)(--e->n_holes - i) * sizeof(*e->holes));
}

int64_t extents_take(struct extents *e, int64_t n)
{
    for (int i = 0; i < e->n_holes; i++) {
        struct extent *h = &e->holes[i];
        if (h->n < n)
            continue;
        int64_t off = h->off;
        h->off += n;
        h->n -= n;
        if (!h->n)
            remove_hole(e, i);
        return off;
    }
    return -1;
}

static struct extent *insert_hole(struct extents *e, int at)
{
    if (e->n_holes == e->cap_holes) {
        struct extent *grown = realloc(e->holes, 2 * (size_t)e->cap_holes * sizeof(*grown));
        if (!grown)
            return NULL;
        e->holes = grown;
        e->cap_holes *= 2;
    }
    memmove(e->holes + at + 1, e->holes + at, (size_t)(e->n_holes++ - at) * sizeof(*e->holes));
    return e->holes + at;
}

void extents_give(struct extents *e, int64_t off, int64_t n)
{
    int i = 0;
    while (i < e->n_holes && e->holes[i].off < off)
        i++;
    bool joins_prev = i > 0 && e->holes[i - 1].off + e->holes[i - 1].n == off;
    bool joins_next = i < e->n_holes && off + n == e->holes[i].off;
    if (joins_prev && joins_next) {
        e->holes[i - 1].n += n + e->holes[i].n;
        remove_hole(e, i);
    } else if (joins_prev) {
        e->holes[i - 1].n += n;
    } else if (joins_next) {
        e->holes[i].off = off;
        e->holes[i].n += n;
    } else {
        struct extent *h = insert_hole(e, i);
        if (h)
            *h = (struct extent){off, n};
    }
}
