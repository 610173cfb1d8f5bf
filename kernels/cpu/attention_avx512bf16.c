/* Attention with vdpbf16ps for bf16 (attention_bf16.h): 8 items by 32 outputs in registers, two inputs at a time. */
#include "kernels/cpu/attention_bf16.h"

enum { FULL_ROWS = 8 };

static inline __m512bh pairs_of(const char *p)
{
    return (__m512bh)_mm512_load_si512((const void *)p);
}

/* Rows row .. row + rows - 1 of a product: one chain over the inputs for each output, however many rows there are. */
static inline __attribute__((always_inline)) void multiply_rows(const struct product *p, int row, const int rows)
{
    __m512 acc[FULL_ROWS][2];
    char *c = p->c + row * p->ldc;
    const char *a = p->a + row * p->lda, *b = p->b;
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            acc[r][h] = p->add ? _mm512_load_ps(c + r * p->ldc + h * 64) : _mm512_setzero_ps();
    for (int s = 0; s < p->steps; s++, a += p->a_next, b += p->b_next)
        for (int i = 0; i < STEP * 2; i += 4) { /* bytes of a row: a pair */
            __m512bh b0 = pairs_of(b + i * 16), b1 = pairs_of(b + p->b_gap + i * 16);
            for (int r = 0; r < rows; r++) {
                /* a load and a broadcast: clang 16 crashes at set1_epi32 here */
                __m512bh av = (__m512bh)_mm512_broadcastd_epi32(_mm_loadu_si32(a + r * p->lda + i));
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], av, b0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], av, b1);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm512_store_ps(c + r * p->ldc + h * 64, acc[r][h]);
}

static void multiply(const struct product *p, int n, int rows)
{
    for (; n; n--, p++) {
        int r = 0;
        for (; r + FULL_ROWS <= rows; r += FULL_ROWS)
            multiply_rows(p, r, FULL_ROWS);
        for (; r + 3 <= rows; r += 3)
            multiply_rows(p, r, 3);
        if (rows - r == 2)
            multiply_rows(p, r, 2);
        else if (rows - r == 1)
            multiply_rows(p, r, 1);
    }
}

static void run(void *work, const struct attention_task *t, int first, int key0)
{
    struct work *w = work;
    struct product p[MAX_PRODUCTS];
    if (w->bad_values)
        refuse_bad_values(w, t, first, key0);
    for (int tile = first; tile * ITEMS < t->n_items; tile++) {
        int rows = tile_rows(t, tile);
        bool whole = sees_all(t, tile, key0);
        multiply(p, list_scores(w, t, tile, key0, p), rows);
        for (int i = 0; i < rows; i++)
            soften_item(w, t, tile * ITEMS + i, key0, whole);
        multiply(p, list_values(w, t, tile, key0, p), rows);
    }
}

const struct attention_kernel attention_avx512bf16 = {
    .run = run,
    ATTENTION_BF16,
};
