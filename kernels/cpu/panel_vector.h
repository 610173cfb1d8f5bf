/* Panel matmuls with float32 fused multiply-adds, at the width of the level that includes this file. bf16 weights are widened on the way:
 * a 32-bit lane holds the weights of two neighbouring inputs for one output. */
#pragma once
#include "kernels/cpu/panel_finish.h"
#include "kernels/cpu/simd.h"

enum {
    VECTORS = 2, /* of outputs, held at once */
    WIDTH = VECTORS * VL,
    FULL_ROWS = VL == 16 ? 8 : 4, /* rows held at once: what the registers hold */
    VECTOR_BLOCK_STEPS = 8,
};

/* The inputs i of step-row-major x, for `rows` rows: acc += x[row][i] w. */
#define ACCUMULATE(i, w)                               \
    for (int r = 0; r < rows; r++) {                   \
        vf xv = vf_set(x[r * K_STEP + (i)]);           \
        for (int v = 0; v < VECTORS; v++)              \
            acc[r][v] = vf_fma(xv, (w)[v], acc[r][v]); \
    }

/* Rows and type are constants where it is called, so the accumulators are registers. */
static inline __attribute__((always_inline)) void multiply_rows(float *c, const float *x, const char *w, enum dtype type, int col,
                                                                int steps, const int rows, bool first)
{
    vf acc[FULL_ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            acc[r][v] = first ? vf_set(0) : vf_load(c + r * PANEL + col + v * VL);
    for (int s = 0; s < steps; s++, x += ROWS * K_STEP) {
        if (type == DTYPE_F32) {
            const float *ws = (const float *)w + (size_t)s * STEP_SIZE + col;
            for (int i = 0; i < K_STEP; i++) {
                vf wv[VECTORS];
                for (int v = 0; v < VECTORS; v++)
                    wv[v] = vf_load(ws + i * PANEL + v * VL);
                ACCUMULATE(i, wv);
            }
        } else {
            const uint16_t *ws = (const uint16_t *)w + (size_t)s * STEP_SIZE;
            for (int i = 0; i < K_STEP; i += 2) {
                vf even[VECTORS], odd[VECTORS];
                for (int v = 0; v < VECTORS; v++) {
                    int lane = col + v * VL;
                    vf_load_pairs(ws + lane / 16 * (STEP_SIZE / 2) + i * 16 + lane % 16 * 2, &even[v], &odd[v]);
                }
                ACCUMULATE(i, even);
                ACCUMULATE(i + 1, odd);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++)
            vf_store(c + r * PANEL + col + v * VL, acc[r][v]);
}

static inline __attribute__((always_inline)) void multiply_block(float *c, const float *x, const char *w, enum dtype type, int steps,
                                                                 int rows, bool first)
{
    for (int col = 0; col < PANEL; col += WIDTH) {
        int r = 0;
        for (; r + FULL_ROWS <= rows; r += FULL_ROWS)
            multiply_rows(c + r * PANEL, x + r * K_STEP, w, type, col, steps, FULL_ROWS, first);
        for (; r + 2 <= rows; r += 2)
            multiply_rows(c + r * PANEL, x + r * K_STEP, w, type, col, steps, 2, first);
        for (; r < rows; r++)
            multiply_rows(c + r * PANEL, x + r * K_STEP, w, type, col, steps, 1, first);
    }
}

static void block_wf32(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    prefetch_lines(ahead, steps * ahead_lines);
    multiply_block(c, x, w, DTYPE_F32, steps, rows, first);
}

static void block_wbf16(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    prefetch_lines(ahead, steps * ahead_lines);
    multiply_block(c, x, w, DTYPE_BF16, steps, rows, first);
}

#define PANEL_VECTOR(which)                \
    {                                      \
        .x_type = DTYPE_F32,               \
        .x_terms = 1,                      \
        .w_terms = 1,                      \
        .block_steps = VECTOR_BLOCK_STEPS, \
        .n_passes = 1,                     \
        .pack_row = panel_pack_row_f32,    \
        .block = which,                    \
        .finish = panel_finish_rows,       \
    }
