/* Bump allocator with one lifetime (a request, a model). Not thread-safe. */
#pragma once
#include <stddef.h>

struct arena_block;
struct charge;
struct arena {
    struct arena_block *head;
    size_t used_bytes;
    size_t max_bytes;
    struct charge *charge; /* what blocks are charged to; set after arena_init; NULL: nothing */
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_done(struct arena *a);
/* 16-byte aligned, zeroed; NULL when memory, max_bytes or the charge is exhausted, or n * size overflows. */
void *arena_alloc(struct arena *a, size_t n, size_t size);
char *arena_strndup(struct arena *a, const char *s, size_t n);
