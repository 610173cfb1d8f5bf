/* Panel matmuls with vdpbf16ps: 8 rows by 32 outputs in registers, two inputs at a time. */
#include "kernels/cpu/panel_finish.h"
#include <immintrin.h>

enum {
    FULL_ROWS = 8,
    BLOCK_STEPS = 128, /* a panel of 4,096 inputs: its weights come from the L2 cache in time, so that sums seldom leave registers */
    STREAM_STEPS = 12, /* what the L1 cache holds */
};

/* The cache lines that come after the weights at hand: `lines` are fetched at each step, since many at once would keep loads waiting. */
struct ahead {
    const char *at;
    int lines;
};

static inline __m512bh pairs_of(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

/* x_step: elements from one step of the rows to the next. fetch: also the lines of the weights that come STREAM_AHEAD later. */
static inline __attribute__((always_inline)) void multiply_rows(float *c, const uint16_t *x, int x_step, const uint16_t *w, int steps,
                                                                const int rows, bool first, const bool fetch, struct ahead next)
{
    __m512 acc[FULL_ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            acc[r][h] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + r * PANEL + h * 16);
    for (int s = 0; s < steps; s++, x += x_step, w += STEP_SIZE) {
        next.at = prefetch_lines(next.at, next.lines);
        for (int i = 0; i < K_STEP; i += 2) {
            __m512bh w0 = pairs_of(w + i * (PAIR_SIZE / 2)), w1 = pairs_of(w + i * (PAIR_SIZE / 2) + PAIR_SIZE / 2);
            if (fetch) {
                __builtin_prefetch((const char *)w + STREAM_AHEAD + i * 64); /* in the order in which lines lie */
                __builtin_prefetch((const char *)w + STREAM_AHEAD + i * 64 + 64);
                __asm__ volatile("" ::: "memory"); /* they stay between the loads */
            }
            for (int r = 0; r < rows; r++) {
                /* a load and a broadcast: clang 16 crashes at set1_epi32 here */
                __m512bh xv = (__m512bh)_mm512_broadcastd_epi32(_mm_loadu_si32(x + r * K_STEP + i));
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], xv, w0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], xv, w1);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm512_storeu_ps(c + r * PANEL + h * 16, acc[r][h]);
}

/* Rows from `r` on, whose weights are in the cache. The first of them fetch what is next. */
static void multiply_rest(float *c, const uint16_t *x, int x_step, const uint16_t *w, int steps, int r, int rows, bool first,
                          struct ahead next)
{
    for (; r + FULL_ROWS <= rows; r += FULL_ROWS, next.lines = 0)
        multiply_rows(c + r * PANEL, x + r * K_STEP, x_step, w, steps, FULL_ROWS, first, false, next);
    for (; r + 2 <= rows; r += 2, next.lines = 0)
        multiply_rows(c + r * PANEL, x + r * K_STEP, x_step, w, steps, 2, first, false, next);
    for (; r < rows; r++, next.lines = 0)
        multiply_rows(c + r * PANEL, x + r * K_STEP, x_step, w, steps, 1, first, false, next);
}

static void block(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    multiply_rest(c, x, ROWS * K_STEP, w, steps, 0, rows, first, (struct ahead){ahead, ahead_lines});
}

static void stream(float *c, const void *xp, const void *wp, int steps, int rows)
{
    const uint16_t *x = xp, *w = wp;
    const struct ahead none = {NULL, 0};
    int x_step = rows * K_STEP, size = rows <= FULL_ROWS ? steps : STREAM_STEPS;
    for (int s = 0; s < steps; s += size, x += size * x_step, w += (size_t)size * STEP_SIZE) {
        int n = min_int(size, steps - s), done = rows >= FULL_ROWS ? FULL_ROWS : rows >= 2 ? 2 : 1;
        if (done == FULL_ROWS)
            multiply_rows(c, x, x_step, w, n, FULL_ROWS, !s, true, none);
        else if (done == 2)
            multiply_rows(c, x, x_step, w, n, 2, !s, true, none);
        else
            multiply_rows(c, x, x_step, w, n, 1, !s, true, none);
        multiply_rest(c, x, x_step, w, n, done, rows, !s, none);
    }
}

const struct panel_kernel panel_avx512bf16 = {
    .x_type = DTYPE_BF16,
    .x_terms = 1,
    .w_terms = 1,
    .block_steps = BLOCK_STEPS,
    .n_passes = 1,
    .pack_row = panel_pack_row_bf16,
    .block = block,
    .stream = stream,
    .finish = panel_finish_rows,
};
