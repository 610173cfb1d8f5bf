/* Extents of one long array in a device's memory (the block tables), first fit. Host integers only: the array belongs to the executor.
 * Used by one thread. */
#pragma once
#include <stdint.h>

struct extent {
    int64_t off, n;
};

struct extents {
    struct extent *holes; /* free ones, ascending, never adjacent */
    int n_holes, cap_holes;
};

/* All of 0 .. n-1 is free. On ERR_NOMEM nothing is left behind. */
int extents_init(struct extents *e, int64_t n);
void extents_done(struct extents *e); /* copes with a zeroed struct */

/* The offset of n entries, n >= 1; -1 when no hole is that large. */
int64_t extents_take(struct extents *e, int64_t n);
/* Gives back what was taken. Without memory for one more hole the entries are lost until the end; they are never handed out twice. */
void extents_give(struct extents *e, int64_t off, int64_t n);
