/* Matmuls over packed weight panels: the weights' layout, the kernels that each CPU level has for it, and the loop around them.
 *
 * Layout. A panel is PANEL outputs; k is cut into steps of K_STEP inputs, the last one padded with zeros, like the last panel.
 *   bf16: [term][panel][step][16 pairs][32 outputs][2 inputs]   the operand of vdpbf16ps. Lines are read in the order in which they lie: two halves a
 *         kilobyte apart were read at 0.67 to 0.9 of what memory gives, this at 0.85 to 0.97
 *   bf16, tiles: [term][panel][step][half][16 pairs][16 outputs][2 inputs]   that of tdpbf16ps; a half is one tile, which is read at a time
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
enum {
    PAIR_SIZE = 2 * PANEL
}; /* elements from one pair of inputs to the next in a bf16 panel without tiles; the second half of the outputs begins in their middle */

/* One level's way to run a matrix of one layout. Pointers to c are 64-byte aligned; a, b as laid out above. */
struct panel_kernel {
    enum dtype x_type; /* of packed rows */
    int x_terms, w_terms;
    bool tiles;      /* of bf16 weights */
    int block_steps; /* steps that are run before the accumulators rest: of as many the weights come from a cache in time */
    int n_passes;
    struct {
        signed char x_term, w_term;
    } pass[MAX_PASSES];
    void (*begin)(void); /* once a task; NULL: nothing */
    /* Row `row` of a group of `rows` (terms lie term_size elements apart) from k values of src. */
    void (*pack_row)(void *dst, size_t term_size, int rows, int row, const void *src, enum dtype src_type, int k);
    /* c[ROWS, PANEL] = (first ? 0 : c) + x w over `steps` steps, for rows 0..rows-1 (others may be written). Meanwhile the cache lines
     * from `ahead` on are fetched, ahead_lines a step. */
    void (*block)(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines);
    /* A whole panel for at most ROWS rows, with the weights from memory: c[rows, PANEL] = x w over all steps, lines being fetched
     * before they are used (panel_rows.h). x: [step][rows][K_STEP]. The same chains as block's. NULL: few rows are no different. */
    void (*stream)(float *c, const void *x, const void *w, int steps, int rows);
    /* The epilogue of `job` for rows row_ids[0..rows-1], whose sums are c[rows, PANEL]. */
    void (*finish)(const struct matmul_job *job, const float *c, int panel, const int *row_ids, int rows);
};

extern const struct panel_kernel panel_amx, panel_amx_accurate, panel_amx_accurate3, panel_avx512bf16;
extern const struct panel_kernel panel_avx512_wbf16, panel_avx512_wf32, panel_avx2_wbf16, panel_avx2_wf32;

static inline const struct panel_kernel *panel_kernel_of(const struct kern_matrix *w)
{
    return w->state;
}
static inline int panel_steps(const struct kern_matrix *w)
{
    return (w->k + K_STEP - 1) / K_STEP;
}
static inline enum dtype panel_type(const struct kern_matrix *w)
{
    return panel_kernel_of(w)->x_type == DTYPE_BF16 ? DTYPE_BF16 : w->weight_type;
}
static inline size_t panel_bytes(const struct kern_matrix *w)
{
    return (size_t)panel_steps(w) * STEP_SIZE * dtype_size(panel_type(w));
}

static inline char *panel_at(const struct kern_matrix *w, int term, int p)
{
    return (char *)w->packed + ((size_t)term * w->n_panels + p) * panel_bytes(w);
}

/* The product of a job of 1 to ROWS rows, for kernels that have `stream` (matmul_stream.c). */
void matmul_stream(struct cpu *c, const struct matmul_job *job, int rows);
