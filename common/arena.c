/* Bump allocator: a list of blocks, the newest first, each up to four times as large as the one before, so that a small request holds little;
 * what is larger than a quarter of the largest gets a block of its own. */
#include "common/arena.h"
#include "common/budget.h"
#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BYTES ((size_t)4 * 1024)
#define BLOCK_BYTES ((size_t)64 * 1024) /* the largest block of small requests */
#define ALIGN ((size_t)16)

struct arena_block {
    struct arena_block *next;
    size_t used, cap;
    alignas(16) unsigned char bytes[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
    *a = (struct arena){.max_bytes = max_bytes};
}

void arena_done(struct arena *a)
{
    while (a->head) {
        struct arena_block *b = a->head;
        a->head = b->next;
        charge_give(a->charge, sizeof(*b) + b->cap);
        free(b);
    }
    a->used_bytes = 0;
}

static size_t block_for(const struct arena *a, size_t bytes)
{
    size_t cap = FIRST_BYTES;
    while (cap < BLOCK_BYTES && (cap <= a->used_bytes || bytes > cap / 4))
        cap *= 4;
    return bytes > BLOCK_BYTES / 4 ? bytes : cap;
}

static struct arena_block *add_block(struct arena *a, size_t bytes)
{
    size_t cap = block_for(a, bytes);
    if (!charge_take(a->charge, sizeof(struct arena_block) + cap))
        return NULL;
    struct arena_block *b = calloc(1, sizeof(*b) + cap);
    if (!b) {
        charge_give(a->charge, sizeof(*b) + cap);
        return NULL;
    }
    b->cap = cap;
    if (a->head && cap == bytes && bytes != BLOCK_BYTES) { /* a big one goes behind, so the open block stays open */
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

void *arena_alloc(struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = bytes ? (bytes + ALIGN - 1) & ~(ALIGN - 1) : ALIGN;
    if (bytes > a->max_bytes - a->used_bytes)
        return NULL;
    struct arena_block *b = a->head;
    if (!b || bytes > b->cap - b->used)
        b = add_block(a, bytes);
    if (!b)
        return NULL;
    void *p = b->bytes + b->used;
    b->used += bytes;
    a->used_bytes += bytes;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *copy = n < SIZE_MAX ? arena_alloc(a, n + 1, 1) : NULL;
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}
