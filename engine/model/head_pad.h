/* Heads in the size that kernels take. A head of hd values lies in hp >= hd, the others zero: q and k in two halves, since rotation pairs
 * value j with j + hp/2, everything else at its start. Products with zeros change no sum, so results are those of hd. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct head_pad {
    int hd, hp;
    bool halves;
};

/* Place in the padded head of value j of the head. */
static inline int head_pad_index(const struct head_pad *p, int j)
{
    return p->halves && j >= p->hd / 2 ? p->hp / 2 + j - p->hd / 2 : j;
}

/* src: [heads * hd, cols] of elements of `size` bytes, of any alignment; the result [heads * hp, cols] is malloc'ed; NULL: no memory. */
void *head_pad_rows(const struct head_pad *p, const void *src, size_t heads, size_t cols, size_t size);
/* src: [rows, heads * hd]; the result [rows, heads * hp]. */
void *head_pad_columns(const struct head_pad *p, const void *src, size_t rows, size_t heads, size_t size);
