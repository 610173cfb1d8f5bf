/* Panel matmuls on AMX: 32 x 32 outputs in four tiles, K in ascending steps of 32.
 *
 * tdpbf16ps sums each row of its first operand by itself, so a row has the same bits in any tile; fewer than 17 rows take two tiles
 * instead of four. Block size: a panel's block must stay in L1 (20 KB of 48) while the row groups stream past it from L2. */
#include "kernels/cpu/amx.h"
#include "kernels/cpu/panel_finish.h"

enum { HALF = STEP_SIZE / 2 /* of the rows, and of the weights */, AMX_BLOCK_STEPS = 10 };

/* Tiles 0, 1: rows 0..15; 2, 3: rows 16..31. */
static void block_32(float *c, const uint16_t *x, const uint16_t *w, int steps, bool first, const char *ahead, int ahead_lines)
{
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, c, PANEL * 4);
        _tile_loadd(1, c + 16, PANEL * 4);
        _tile_loadd(2, c + 16 * PANEL, PANEL * 4);
        _tile_loadd(3, c + 16 * PANEL + 16, PANEL * 4);
    }
    for (int s = 0; s < steps; s++, x += STEP_SIZE, w += STEP_SIZE) {
        ahead = prefetch_lines(ahead, ahead_lines);
        _tile_loadd(4, x, 64);
        _tile_loadd(6, w, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + HALF, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, x + HALF, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, PANEL * 4);
    _tile_stored(1, c + 16, PANEL * 4);
    _tile_stored(2, c + 16 * PANEL, PANEL * 4);
    _tile_stored(3, c + 16 * PANEL + 16, PANEL * 4);
}

static void block_16(float *c, const uint16_t *x, const uint16_t *w, int steps, bool first, const char *ahead, int ahead_lines)
{
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
    } else {
        _tile_loadd(0, c, PANEL * 4);
        _tile_loadd(1, c + 16, PANEL * 4);
    }
    for (int s = 0; s < steps; s++, x += STEP_SIZE, w += STEP_SIZE) {
        ahead = prefetch_lines(ahead, ahead_lines);
        _tile_loadd(4, x, 64);
        _tile_loadd(6, w, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, w + HALF, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, c, PANEL * 4);
    _tile_stored(1, c + 16, PANEL * 4);
}

static void block_amx(float *c, const void *x, const void *w, int steps, int rows, bool first, const char *ahead, int ahead_lines)
{
    if (rows > 16)
        block_32(c, x, w, steps, first, ahead, ahead_lines);
    else
        block_16(c, x, w, steps, first, ahead, ahead_lines);
}

#define AMX_COMMON \
    .x_type = DTYPE_BF16, .tiles = true, .block_steps = AMX_BLOCK_STEPS, .begin = amx_begin, .block = block_amx, .finish = panel_finish_rows

const struct panel_kernel panel_amx = {AMX_COMMON, .x_terms = 1, .w_terms = 1, .n_passes = 1, .pack_row = panel_pack_row_bf16};

/* Small products first. */
const struct panel_kernel panel_amx_accurate = {
    AMX_COMMON, .x_terms = 3, .w_terms = 1, .n_passes = 3, .pass = {{2, 0}, {1, 0}, {0, 0}}, .pack_row = panel_pack_row_split3};

/* Of the nine products of terms, the three left out are below 2^-24 of the largest. */
const struct panel_kernel panel_amx_accurate3 = {AMX_COMMON,
                                                 .x_terms = 3,
                                                 .w_terms = 3,
                                                 .n_passes = 6,
                                                 .pass = {{2, 0}, {1, 1}, {0, 2}, {1, 0}, {0, 1}, {0, 0}},
                                                 .pack_row = panel_pack_row_split3};
