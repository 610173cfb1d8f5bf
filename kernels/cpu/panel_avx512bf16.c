/* Panel matmuls with vdpbf16ps: 8 rows by 32 outputs in registers, two inputs at a time. */
#include "kernels/cpu/panel_finish.h"
#include <immintrin.h>

enum { FULL_ROWS = 8, HALF = STEP_SIZE / 2, BLOCK_STEPS = 12 };

static inline __m512bh pairs_of(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

static inline __attribute__((always_inline)) void multiply_rows(float *c, const uint16_t *x, const uint16_t *w, int steps, const int rows,
                                                                bool first)
{
    __m512 acc[FULL_ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            acc[r][h] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(c + r * PANEL + h * 16);
    for (int s = 0; s < steps; s++, x += ROWS * K_STEP, w += STEP_SIZE)
        for (int i = 0; i < K_STEP; i += 2) {
            __m512bh w0 = pairs_of(w + i * 16), w1 = pairs_of(w + HALF + i * 16);
            for (int r = 0; r < rows; r++) {
                /* a load and a broadcast: clang 16 crashes at set1_epi32 here */
                __m512bh xv = (__m512bh)_mm512_broadcastd_epi32(_mm_loadu_si32(x + r * K_STEP + i));
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], xv, w0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], xv, w1);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm512_storeu_ps(c + r * PANEL + h * 16, acc[r][h]);
}

static void block(float *c, const void *xp, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    const uint16_t *x = xp;
    int r = 0;
    prefetch_lines(ahead, steps * ahead_lines);
    for (; r + FULL_ROWS <= rows; r += FULL_ROWS)
        multiply_rows(c + r * PANEL, x + r * K_STEP, w, steps, FULL_ROWS, first);
    for (; r + 2 <= rows; r += 2)
        multiply_rows(c + r * PANEL, x + r * K_STEP, w, steps, 2, first);
    for (; r < rows; r++)
        multiply_rows(c + r * PANEL, x + r * K_STEP, w, steps, 1, first);
}

const struct panel_kernel panel_avx512bf16 = {
    .x_type = DTYPE_BF16,
    .x_terms = 1,
    .w_terms = 1,
    .block_steps = BLOCK_STEPS,
    .n_passes = 1,
    .pack_row = panel_pack_row_bf16,
    .block = block,
    .finish = panel_finish_rows,
};
