#include "engine/model/head_pad.h"
#include <stdlib.h>
#include <string.h>

void *head_pad_rows(const struct head_pad *p, const void *src, size_t heads, size_t cols, size_t size)
{
    size_t row = cols * size;
    char *dst = calloc(heads * (size_t)p->hp, row);
    for (size_t h = 0; dst && h < heads; h++)
        for (int j = 0; j < p->hd; j++)
            memcpy(dst + (h * (size_t)p->hp + (size_t)head_pad_index(p, j)) * row,
                   (const char *)src + (h * (size_t)p->hd + (size_t)j) * row, row);
    return dst;
}

/* A matrix of rows x heads * hd is one of rows * heads heads, each of one column. */
void *head_pad_columns(const struct head_pad *p, const void *src, size_t rows, size_t heads, size_t size)
{
    return head_pad_rows(p, src, rows * heads, 1, size);
}
