/* Panel matmuls with vdpbf16ps: 8 rows by 32 outputs in registers, two inputs at a time. */
#include "kernels/cpu/panel_finish.h"
#include "kernels/cpu/panel_rows.h"
#include <immintrin.h>

enum {
    FULL_ROWS = 8,
    BLOCK_STEPS = 128, /* a panel of 4,096 inputs: its weights come from the L2 cache in time, so that sums seldom leave registers */
    STREAM_STEPS = 6,  /* whose weights the L1 cache holds beside their rows */
    STEP_LINES = STEP_SIZE * 2 / 64,
};

static inline __m512bh pairs_of(const uint16_t *p)
{
    return (__m512bh)_mm512_loadu_si512(p);
}

/* What a call multiplies: so many steps of weights with rows of x whose steps lie x_step elements apart. */
struct product {
    float *c;
    const uint16_t *x, *w;
    int x_step, steps;
    bool first;
    struct ahead next;
};

/* `rows` is a constant where it is called, so that the sums are registers. fetch: also weights that come later. */
static inline __attribute__((always_inline)) void multiply_rows(struct product p, const int rows, const bool fetch)
{
    __m512 acc[FULL_ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            acc[r][h] = p.first ? _mm512_setzero_ps() : _mm512_loadu_ps(p.c + r * PANEL + h * 16);
    for (int s = 0; s < p.steps; s++, p.x += p.x_step) {
        p.next.at = prefetch_lines(p.next.at, p.next.lines);
        for (int i = 0; i < K_STEP; i += 2, p.w += PAIR_SIZE) {
            __m512bh w0 = pairs_of(p.w), w1 = pairs_of(p.w + PAIR_SIZE / 2);
            if (fetch)
                p.w = fetch_ahead(p.w, 2, rows);
            for (int r = 0; r < rows; r++) {
                /* a load and a broadcast: clang 16 crashes at set1_epi32 here */
                __m512bh xv = (__m512bh)_mm512_broadcastd_epi32(_mm_loadu_si32(p.x + r * K_STEP + i));
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], xv, w0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], xv, w1);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < 2; h++)
            _mm512_storeu_ps(p.c + r * PANEL + h * 16, acc[r][h]);
}

_Static_assert(FULL_ROWS <= FOR_ROWS_MOST, "there is code for each number of rows");

/* At most FULL_ROWS rows. */
static inline __attribute__((always_inline)) void multiply_few(struct product p, int rows, const bool fetch)
{
#define MULTIPLY(n) multiply_rows(p, n, fetch)
    FOR_ROWS(rows, 1, FULL_ROWS, MULTIPLY)
#undef MULTIPLY
}

/* More rows, in parts. Each fetches next.lines from next.at on a step, one part behind the other. */
static void multiply_parts(struct product p, int rows, int parts)
{
    float *c = p.c;
    const uint16_t *x = p.x;
    for (int i = 0, r = 0, end; i < parts; i++, r = end) {
        end = part_begin(rows, parts, i + 1);
        p.c = c + r * PANEL;
        p.x = x + r * K_STEP;
        multiply_few(p, end - r, false);
        p.next.at += p.steps * p.next.lines * 64;
    }
}

static void block(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    int parts = parts_of(rows, FULL_ROWS);
    multiply_parts((struct product){c, x, w, ROWS * K_STEP, steps, first, {ahead, (ahead_lines + parts - 1) / parts}}, rows, parts);
}

static void stream(float *c, const void *x, const void *w, int steps, int rows)
{
    int parts = parts_of(rows, FULL_ROWS), lines = (STEP_LINES + parts - 1) / parts;
    struct product p = {c, x, w, rows * K_STEP, steps, true, {w, 0}};
    if (parts == 1) {
        multiply_few(p, rows, true);
        return;
    }
    for (int left = steps; left > 0; left -= p.steps, p.first = false) {
        p.steps = min_int(STREAM_STEPS, left);
        p.next = (struct ahead){(const char *)(p.w + p.steps * STEP_SIZE), lines};
        multiply_parts(p, rows, parts);
        p.x += p.steps * p.x_step;
        p.w += p.steps * STEP_SIZE;
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
