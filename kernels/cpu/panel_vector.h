/* Panel matmuls with float32 fused multiply-adds, at the width of the level that includes this file. bf16 weights are widened on the way:
 * a 32-bit lane holds the weights of two neighbouring inputs for one output. */
#pragma once
#include "kernels/cpu/panel_finish.h"
#include "kernels/cpu/panel_rows.h"
#include "kernels/cpu/simd.h"

enum {
    VECTORS = 2, /* of outputs, held at once for several rows */
    WIDTH = VECTORS * VL,
    FULL_ROWS = VL == 16 ? 8 : 4, /* rows held at once: what the registers hold */
    FEW_ROWS = VL == 16 ? 8 : 2,  /* with so many the registers hold all of a panel: more chains hide the latency of one */
    VECTOR_BLOCK_STEPS = 8,
};

/* acc[row][v] += x[row][i] w[v] for the vectors first .. first+n-1: each x is spread once for all n. */
#define ACCUMULATE(i, w, first, n)                               \
    for (int r = 0; r < rows; r++) {                             \
        vf xv = vf_set(x[r * K_STEP + (i)]);                     \
        for (int v = first; v < (first) + (n); v++)              \
            acc[r][v] = vf_fma(xv, (w)[v - (first)], acc[r][v]); \
    }

/* Vectors of weights that are held at once: all of a narrow product's; of a whole panel's one after another, since the sums fill the registers. */
#define HELD(vectors) ((vectors) == VECTORS ? VECTORS : 1)

static inline __attribute__((always_inline)) void step_f32(vf acc[][PANEL / VL], const float *x, const float *w, const int rows,
                                                           const int vectors, const bool fetch)
{
    for (int i = 0; i < K_STEP; i++, w += PANEL) {
        w = fetch ? fetch_ahead(w, 2, rows) : w;
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
    for (int i = 0; i < K_STEP; i += 2, w += PAIR_SIZE) {
        w = fetch ? fetch_ahead(w, 2, rows) : w;
        for (int first = 0; first < vectors; first += HELD(vectors)) {
            vf even[VECTORS], odd[VECTORS];
            for (int v = 0; v < HELD(vectors); v++)
                vf_load_pairs(w + (first + v) * VL * 2, &even[v], &odd[v]);
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
    struct ahead next;
};

/* Rows, vectors, type and fetch are constants where it is called, so the accumulators are registers. */
static inline __attribute__((always_inline)) void multiply_rows(struct product p, const int rows, const int vectors, const bool fetch)
{
    vf acc[FULL_ROWS][PANEL / VL];
    float *c = p.c + p.col;
    size_t offset = p.type == DTYPE_F32 ? p.col : p.col * 2;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            acc[r][v] = p.first ? vf_set(0) : vf_load(c + r * PANEL + v * VL);
    for (int s = 0; s < p.steps; s++, p.x += p.x_step) {
        p.next.at = prefetch_lines(p.next.at, p.next.lines);
        if (p.type == DTYPE_F32)
            step_f32(acc, p.x, (const float *)p.w + (size_t)s * STEP_SIZE + offset, rows, vectors, fetch);
        else
            step_bf16(acc, p.x, (const uint16_t *)p.w + (size_t)s * STEP_SIZE + offset, rows, vectors, fetch);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            vf_store(c + r * PANEL + v * VL, acc[r][v]);
}

_Static_assert(FULL_ROWS <= FOR_ROWS_MOST, "there is code for each number of rows");

/* At most FEW_ROWS rows by a whole panel. */
static inline __attribute__((always_inline)) void multiply_few(struct product p, int rows, const bool fetch)
{
#define MULTIPLY(n) multiply_rows(p, n, PANEL / VL, fetch)
    FOR_ROWS(rows, 1, FEW_ROWS, MULTIPLY)
#undef MULTIPLY
}

/* More than FEW_ROWS and at most FULL_ROWS by WIDTH columns; with AVX-512 there are none. */
static inline __attribute__((always_inline)) void multiply_columns(struct product p, int rows)
{
#define MULTIPLY(n) multiply_rows(p, n, VECTORS, false)
    FOR_ROWS(rows, FEW_ROWS + 1, FULL_ROWS, MULTIPLY)
#undef MULTIPLY
}

/* A part of few rows passes the weights once, others once for each WIDTH columns. */
static inline int passes_of(int rows, int parts)
{
    int passes = 0;
    for (int i = 0; i < parts; i++)
        passes += part_begin(rows, parts, i + 1) - part_begin(rows, parts, i) > FEW_ROWS ? PANEL / WIDTH : 1;
    return passes;
}

/* Any number of rows by a whole panel. Each pass fetches its lines, one behind the other. */
static inline __attribute__((always_inline)) void multiply_parts(struct product p, int rows, int parts)
{
    float *c = p.c;
    const float *x = p.x;
    for (p.col = 0; p.col < PANEL; p.col += WIDTH)
        for (int i = 0, r = 0, end; i < parts; i++, r = end) {
            end = part_begin(rows, parts, i + 1);
            int n = end - r;
            p.c = c + r * PANEL;
            p.x = x + r * K_STEP;
            if (n > FEW_ROWS)
                multiply_columns(p, n);
            else if (!p.col)
                multiply_few(p, n, false);
            else
                continue;
            p.next.at += p.steps * p.next.lines * 64;
        }
}

static inline __attribute__((always_inline)) void stream_panel(float *c, const float *x, const char *w, enum dtype type, int steps,
                                                               int rows)
{
    size_t step_bytes = STEP_SIZE * (type == DTYPE_F32 ? 4 : 2);
    struct product p = {.c = c, .x = x, .w = w, .type = type, .steps = steps, .x_step = rows * K_STEP, .first = true, .next = {w, 0}};
    if (rows <= FEW_ROWS) {
        multiply_few(p, rows, true);
        return;
    }
    int parts = parts_of(rows, FULL_ROWS), passes = passes_of(rows, parts);
    p.next.lines = (int)(step_bytes / 64 + passes - 1) / passes;
    for (int left = steps; left > 0; left -= p.steps, p.first = false) {
        p.steps = min_int(VECTOR_BLOCK_STEPS, left);
        p.next.at = p.w + p.steps * step_bytes;
        multiply_parts(p, rows, parts);
        p.x += p.steps * p.x_step;
        p.w += p.steps * step_bytes;
    }
}

#define PANEL_BLOCK(name, type_)                                                                                                          \
    static void block_##name(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines) \
    {                                                                                                                                     \
        struct product p = {                                                                                                              \
            .c = c, .x = x, .w = w, .type = type_, .steps = steps, .x_step = ROWS * K_STEP, .first = first, .next = {w, 0}};              \
        prefetch_lines(ahead, steps *ahead_lines);                                                                                        \
        multiply_parts(p, rows, parts_of(rows, FULL_ROWS));                                                                               \
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
