/* What files of AMX code share. Included only by files built with AMX flags. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

/* All eight tiles: 16 rows of 64 bytes. To be called at the start of every task: other code of the process may use tiles too. */
static inline void amx_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t colsb[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) c = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        c.colsb[i] = 64;
        c.rows[i] = 16;
    }
    /* gcc 12 declares that the load reads 8 bytes only, and would drop the stores to the rest. */
    __asm__ volatile("" : : "r"(&c) : "memory");
    _tile_loadconfig(&c);
}
