#include "kernels/cpu/weight_memory.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Pages that nothing was written to take no memory, so what is left of a block costs a part of one huge page. Small matrices have memory of
 * their own: little is gained, and tools that watch for accesses beyond an allocation see theirs. */
enum { LINE = 64, HUGE_PAGE = 2 << 20, BLOCK = 64 * HUGE_PAGE, SMALL = HUGE_PAGE / 8 };

struct weight_block {
    atomic_int users; /* matrices, and the context that fills it */
    size_t size, used;
    char *memory;
};

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static struct weight_block *new_block(size_t bytes)
{
    struct weight_block *b = malloc(sizeof(*b));
    size_t align = bytes < SMALL ? LINE : HUGE_PAGE, size = round_up(bytes, align);
    char *memory = aligned_alloc(align, size);
    if (!b || !memory) {
        free(b);
        free(memory);
        return NULL;
    }
    if (align == HUGE_PAGE)
        madvise(memory, size, MADV_HUGEPAGE);
    *b = (struct weight_block){.users = 1, .size = size, .memory = memory};
    return b;
}

void weight_memory_drop(struct weight_block *b)
{
    if (!b || atomic_fetch_sub(&b->users, 1) > 1)
        return;
    free(b->memory);
    free(b);
}

void *weight_memory_take(struct weight_block **current, size_t bytes, struct weight_block **ret_block)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = round_up(bytes ? bytes : 1, LINE);
    if (bytes < SMALL || bytes > BLOCK / 2) {
        *ret_block = new_block(bytes);
        return *ret_block ? (*ret_block)->memory : NULL;
    }
    struct weight_block *b = *current;
    if (!b || b->size - b->used < bytes) {
        if (!(b = new_block(BLOCK)))
            return NULL;
        weight_memory_drop(*current);
        *current = b;
    }
    void *p = b->memory + b->used;
    b->used += bytes;
    atomic_fetch_add(&b->users, 1);
    *ret_block = b;
    return p;
}
