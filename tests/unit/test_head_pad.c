/* Padded heads: every value is where head_pad_index says, the rest is zero, and products of padded heads are those of heads. */
#include "engine/model/head_pad.h"
#include "tests/check.h"
#include <stdint.h>
#include <stdlib.h>

enum { HEADS = 3, OTHER = 5 }; /* columns of rows, rows of columns */

static const struct head_pad cases[] = {
    {6, 8, false}, {6, 8, true}, {8, 8, true}, {2, 16, true}, {2, 16, false}, {10, 16, true},
};

static void test_index(const struct head_pad *p)
{
    char taken[16] = {0};
    for (int j = 0; j < p->hd; j++) {
        int at = head_pad_index(p, j);
        if (!CHECK(at >= 0 && at < p->hp && !taken[at]))
            return;
        taken[at] = 1;
        if (p->halves && j < p->hd / 2) /* rotation pairs the same two */
            CHECK_INT(head_pad_index(p, j + p->hd / 2), at + p->hp / 2);
        CHECK(p->halves || at == j);
    }
}

/* Value (head, j, other) of the array is its number in the unpadded one, plus 1. */
static void check_values(const struct head_pad *p, const uint16_t *rows, const uint16_t *columns)
{
    for (int h = 0; h < HEADS; h++)
        for (int o = 0; o < OTHER; o++) {
            long sum_rows = 0, sum_columns = 0;
            for (int j = 0; j < p->hd; j++) {
                int at = h * p->hp + head_pad_index(p, j);
                CHECK_INT(rows[at * OTHER + o], (h * p->hd + j) * OTHER + o + 1);
                CHECK_INT(columns[o * HEADS * p->hp + at], o * HEADS * p->hd + h * p->hd + j + 1);
                sum_rows -= rows[at * OTHER + o];
                sum_columns -= columns[o * HEADS * p->hp + at];
            }
            for (int at = h * p->hp; at < (h + 1) * p->hp; at++) {
                sum_rows += rows[at * OTHER + o];
                sum_columns += columns[o * HEADS * p->hp + at];
            }
            CHECK(!sum_rows && !sum_columns); /* nothing else is there */
        }
}

int main(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint16_t src[HEADS * 16 * OTHER];
        for (size_t j = 0; j < sizeof(src) / sizeof(src[0]); j++)
            src[j] = (uint16_t)(j + 1);
        test_index(&cases[i]);
        uint16_t *rows = head_pad_rows(&cases[i], src, HEADS, OTHER, sizeof(*src));
        uint16_t *columns = head_pad_columns(&cases[i], src, OTHER, HEADS, sizeof(*src));
        if (CHECK(rows && columns))
            check_values(&cases[i], rows, columns);
        free(rows);
        free(columns);
    }
    return check_result();
}
