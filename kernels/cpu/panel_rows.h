/* What the panel kernels of several levels share: rows in parts, and weights that are fetched ahead. */
#pragma once
#include <stddef.h>

enum { L1_AHEAD = 4096, L2_AHEAD = 8192 }; /* bytes from the weights at hand to those that are fetched meanwhile */

/* Fetches `lines` cache lines of what comes later than w; returns w. Where rows are few memory is the slower, and lines go to the first cache; with
 * more the products are, and the second is near enough. The barrier keeps fetches between the loads: gcc would gather those of a step at its
 * beginning, which memory answers at half the rate. It names w alone, since one that names memory would keep sums out of registers. */
static inline __attribute__((always_inline)) const void *fetch_ahead(const void *w, int lines, const int rows)
{
    const char *at = (const char *)w + (rows <= 4 ? L1_AHEAD : L2_AHEAD);
    for (int i = 0; i < lines; i++)
        if (rows <= 4)
            __builtin_prefetch(at + i * 64, 0, 3);
        else
            __builtin_prefetch(at + i * 64, 0, 2);
    __asm__ volatile("" : "+r"(w));
    return w;
}

/* The cache lines that come after the weights at hand: `lines` are fetched at each step, since many at once would keep loads waiting. */
struct ahead {
    const char *at;
    int lines;
};

/* Rows are multiplied in parts of like size, each of at most `full`: how many, and where part i begins. */
static inline int parts_of(int rows, int full)
{
    return (rows + full - 1) / full;
}
static inline int part_begin(int rows, int parts, int i)
{
    return rows * i / parts;
}

/* multiply(n) for the n in least..most that `rows` is: a constant there, so that as many sums lie in registers. */
#define FOR_ROWS_MOST 8
#define FOR_ROWS(rows, least, most, multiply)   \
    switch (rows) {                             \
        FOR_ROWS_CASE(1, least, most, multiply) \
        FOR_ROWS_CASE(2, least, most, multiply) \
        FOR_ROWS_CASE(3, least, most, multiply) \
        FOR_ROWS_CASE(4, least, most, multiply) \
        FOR_ROWS_CASE(5, least, most, multiply) \
        FOR_ROWS_CASE(6, least, most, multiply) \
        FOR_ROWS_CASE(7, least, most, multiply) \
        FOR_ROWS_CASE(8, least, most, multiply) \
    }
#define FOR_ROWS_CASE(n, least, most, multiply) \
    case n:                                     \
        if (n >= (least) && n <= (most))        \
            multiply(n);                        \
        break;
