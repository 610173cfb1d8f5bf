/* Panel matmuls with float32 fused multiply-adds, at the width of the level that includes this file. bf16 weights are widened on the way:
 * a 32-bit lane holds the weights of two neighbouring inputs for one output. */
#pragma once
#include "kernels/cpu/panel_finish.h"
#include "kernels/cpu/simd.h"

enum {
    VECTORS = 2, /* of outputs, held at once for several rows */
    WIDTH = VECTORS * VL,
    FULL_ROWS = VL == 16 ? 8 : 4, /* rows held at once: what the registers hold */
    FEW_ROWS = VL == 16 ? 0 : 2,  /* with so many the registers hold all of a panel: more chains hide the latency of one */
    VECTOR_BLOCK_STEPS = 8,
};

/* acc[row][v] += x[row][i] w[v] for the vectors first .. first+n-1: each x is spread once for all n. */
#define ACCUMULATE(i, w, first, n)                               \
    for (int r = 0; r < rows; r++) {                             \
        vf xv = vf_set(x[r * K_STEP + (i)]);                     \
        for (int v = first; v < (first) + (n); v++)              \
            acc[r][v] = vf_fma(xv, (w)[v - (first)], acc[r][v]); \
    }

/* The barrier keeps them between the loads: gcc would gather all of a step's at its beginning, which memory answers at half the rate. */
static inline __attribute__((always_inline)) void fetch_lines(const void *from, int n)
{
    for (int i = 0; i < n; i++)
        __builtin_prefetch((const char *)from + STREAM_AHEAD + i * 64);
    if (n)
        __asm__ volatile("" ::: "memory");
}

/* Vectors of weights that are held at once: all of a narrow product's; of a whole panel's one after another, since the sums fill the registers. */
#define HELD(vectors) ((vectors) == VECTORS ? VECTORS : 1)

static inline __attribute__((always_inline)) void step_f32(vf acc[][PANEL / VL], const float *x, const float *w, const int rows,
                                                           const int vectors, const bool fetch)
{
    for (int i = 0; i < K_STEP; i++, w += PANEL) {
        fetch_lines(w, fetch ? 2 : 0);
        for (int first = 0; first < vectors; first += HELD(vectors)) {
            vf wv[VECTORS];
            for (int v = 0; v < HELD(vectors); v++)
                wv[v] = vf_load(w + (first + v) * VL);
            ACCUMULATE(i, wv, first, HELD(vectors));
        }
    }
}

static inline __attribute__((always_inline)) void step_bf16(vf acc[][PANEL / VL], const float *x, const uint16_t *w, const int rows,
                                                            const int vectors, const bool fetch)
{
    for (int i = 0; i < K_STEP; i += 2) {
        fetch_lines((const char *)w + i * 64, fetch ? 2 : 0);
        for (int first = 0; first < vectors; first += HELD(vectors)) {
            vf even[VECTORS], odd[VECTORS];
            for (int v = 0; v < HELD(vectors); v++) {
                int column = (first + v) * VL;
                vf_load_pairs(w + i * (PAIR_SIZE / 2) + column * 2, &even[v], &odd[v]);
            }
            ACCUMULATE(i, even, first, HELD(vectors));
            ACCUMULATE(i + 1, odd, first, HELD(vectors));
        }
    }
}

/* What a call multiplies: `steps` steps of columns from `col` on, with rows of x whose steps lie x_step elements apart. */
struct product {
    float *c;
    const float *x;
    const char *w;
    enum dtype type;
    int col, steps, x_step;
    bool first;
};

/* Rows, vectors, type and fetch are constants where it is called, so the accumulators are registers. */
static inline __attribute__((always_inline)) void multiply_rows(struct product p, int row, const int rows, const int vectors,
                                                                const bool fetch)
{
    vf acc[FULL_ROWS][PANEL / VL];
    float *c = p.c + row * PANEL + p.col;
    const float *x = p.x + row * K_STEP;
    size_t offset = p.type == DTYPE_F32 ? p.col : p.col * 2;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            acc[r][v] = p.first ? vf_set(0) : vf_load(c + r * PANEL + v * VL);
    for (int s = 0; s < p.steps; s++, x += p.x_step)
        if (p.type == DTYPE_F32)
            step_f32(acc, x, (const float *)p.w + (size_t)s * STEP_SIZE + offset, rows, vectors, fetch);
        else
            step_bf16(acc, x, (const uint16_t *)p.w + (size_t)s * STEP_SIZE + offset, rows, vectors, fetch);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            vf_store(c + r * PANEL + v * VL, acc[r][v]);
}

/* Rows from `row` on, FULL_ROWS at a time. */
static inline __attribute__((always_inline)) void multiply_rest(struct product p, int row, int rows)
{
    for (; row + FULL_ROWS <= rows; row += FULL_ROWS)
        multiply_rows(p, row, FULL_ROWS, VECTORS, false);
    for (; row + 2 <= rows; row += 2)
        multiply_rows(p, row, 2, VECTORS, false);
    for (; row < rows; row++)
        multiply_rows(p, row, 1, VECTORS, false);
}

static inline __attribute__((always_inline)) void multiply_block(struct product p, int rows)
{
    for (p.col = 0; p.col < PANEL; p.col += WIDTH)
        multiply_rest(p, 0, rows);
}

/* The first rows with the first columns, for which the weights come from memory; all others find them in the cache. */
static inline __attribute__((always_inline)) void stream_block(struct product p, int rows)
{
    int done = rows >= FULL_ROWS ? FULL_ROWS : rows >= 2 ? 2 : 1;
    if (done == FULL_ROWS)
        multiply_rows(p, 0, FULL_ROWS, VECTORS, true);
    else if (done == 2)
        multiply_rows(p, 0, 2, VECTORS, true);
    else
        multiply_rows(p, 0, 1, VECTORS, true);
    multiply_rest(p, done, rows);
    for (p.col = WIDTH; p.col < PANEL; p.col += WIDTH)
        multiply_rest(p, 0, rows);
}

/* One or two rows by a whole panel; where WIDTH is a panel already, nothing is left of the choice. */
static inline __attribute__((always_inline)) bool stream_few(struct product p, int rows)
{
    enum { ALL = PANEL / VL };
    if (rows > FEW_ROWS)
        return false;
    if (rows == 1)
        multiply_rows(p, 0, 1, ALL, true);
    else
        multiply_rows(p, 0, 2, ALL, true);
    return true;
}

static inline __attribute__((always_inline)) void stream_panel(float *c, const float *x, const char *w, enum dtype type, int steps,
                                                               int rows)
{
    struct product p = {.c = c, .x = x, .w = w, .type = type, .steps = steps, .x_step = rows * K_STEP, .first = true};
    if (stream_few(p, rows))
        return;
    for (int s = 0; s < steps; s += p.steps, p.first = false) {
        p.steps = steps - s < VECTOR_BLOCK_STEPS ? steps - s : VECTOR_BLOCK_STEPS;
        p.x = x + (size_t)s * p.x_step;
        p.w = w + (size_t)s * STEP_SIZE * (type == DTYPE_F32 ? 4 : 2);
        stream_block(p, rows);
    }
}

#define PANEL_BLOCK(name, type_)                                                                                                          \
    static void block_##name(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines) \
    {                                                                                                                                     \
        struct product p = {.c = c, .x = x, .w = w, .type = type_, .steps = steps, .x_step = ROWS * K_STEP, .first = first};              \
        prefetch_lines(ahead, steps *ahead_lines);                                                                                        \
        multiply_block(p, rows);                                                                                                          \
    }                                                                                                                                     \
    static void stream_##name(float *c, const void *x, const void *w, int steps, int rows)                                                \
    {                                                                                                                                     \
        stream_panel(c, x, w, type_, steps, rows);                                                                                        \
    }
PANEL_BLOCK(wf32, DTYPE_F32)
PANEL_BLOCK(wbf16, DTYPE_BF16)

#define PANEL_VECTOR(name)                 \
    {                                      \
        .x_type = DTYPE_F32,               \
        .x_terms = 1,                      \
        .w_terms = 1,                      \
        .block_steps = VECTOR_BLOCK_STEPS, \
        .n_passes = 1,                     \
        .pack_row = panel_pack_row_f32,    \
        .block = block_##name,             \
        .stream = stream_##name,           \
        .finish = panel_finish_rows,       \
    }
