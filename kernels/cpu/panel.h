/* Matmuls over packed weight panels: the weights' layout, the kernels that each CPU level has for it, and the loop around them.
 *
 * Layout. A panel is PANEL outputs; k is cut into steps of K_STEP inputs, the last one padded with zeros, like the last panel.
 *   bf16: [term][panel][step][half][16 pairs][16 outputs][2 inputs]   the operand of tdpbf16ps and vdpbf16ps; a half is one tile
 *   f32:  [panel][step][32 inputs][32 outputs]
 * Halves are the outputs 0..15 and 16..31 of a panel; in a GATE_UP matrix, 16 gates and the 16 ups that belong to them.
 * Weights that were stored as bf16 stay bf16 whatever the compute dtype. Others are f32 in f32 mode, and three bf16 terms
 * (w = hi + mid + lo, exactly) for MATRIX_ACCURATE where there is AMX.
 *
 * Rows of x are gathered, converted and padded into groups of ROWS: [group][term][step][row][K_STEP], bf16 or f32.
 *
 * Order of sums. An output is one chain of accumulations over (pass, step), whatever block sizes and row groups cut it into: between
 * blocks an accumulator rests in memory as the float that it is. So its bits follow from its own row and column alone. */
#pragma once
#include "kernels/cpu/matrix.h"

enum { PANEL = 32, K_STEP = 32, ROWS = 32, STEP_SIZE = PANEL * K_STEP, MAX_PASSES = 6 };

/* One level's way to run a matrix of one layout. Pointers to c are 64-byte aligned; a, b as laid out above. */
struct panel_kernel {
    enum dtype x_type; /* of packed rows */
    int x_terms, w_terms;
    int block_steps; /* steps that are run before the accumulators rest: what the L1 cache holds */
    int n_passes;
    struct {
        signed char x_term, w_term;
    } pass[MAX_PASSES];
    void (*begin)(void); /* once a task; NULL: nothing */
    /* Row `row` of a group (terms lie term_size elements apart) from k values of src. */
    void (*pack_row)(void *dst, size_t term_size, int row, const void *src, enum dtype src_type, int k);
    /* c[ROWS, PANEL] = (first ? 0 : c) + x w over `steps` steps, for rows 0..rows-1 (others may be written). Meanwhile the cache lines
     * from `ahead` on are fetched, ahead_lines a step. */
    void (*block)(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines);
    /* The epilogue of `job` for rows row_ids[0..rows-1], whose sums are c[rows, PANEL]. */
    void (*finish)(const struct matmul_job *job, const float *c, int panel, const int *row_ids, int rows);
};

extern const struct panel_kernel panel_amx, panel_amx_accurate, panel_amx_accurate3, panel_avx512bf16;
extern const struct panel_kernel panel_avx512_wbf16, panel_avx512_wf32, panel_avx2_wbf16, panel_avx2_wf32;
