/* Numbers 0 .. n-1 of equal places in a device's memory (rows of K and V, copies of router states), and who has them: a stack of the free ones.
 * Host integers only: the memory itself belongs to the executor. Used by one thread. */
#pragma once

struct slots {
    int *free; /* [n] the first n_free are free; the last of them is taken next */
    int n, n_free;
    int most; /* taken at a time so far: no others than 0 .. most-1 ever were */
};

/* On ERR_NOMEM nothing is left behind. n >= 0. */
int slots_init(struct slots *s, int n);
void slots_done(struct slots *s); /* copes with a zeroed struct */

/* Takes n <= n_free slots (the caller's duty); slots given back last are taken first. */
void slots_take(struct slots *s, int n, int *ret);
void slots_give(struct slots *s, const int *slots, int n);
