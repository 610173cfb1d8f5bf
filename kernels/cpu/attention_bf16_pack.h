/* Keys and values in the order that tile products take them: pairs of inputs side by side. Included by attention_bf16.h. */
#pragma once
#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    STEP = 32,       /* inputs of one tile product */
    TILE_SIZE = 512, /* bf16 values of a tile */
    TILE_BYTES = 2 * TILE_SIZE,
    BF16_INFINITY = 0x7f80,
};

static inline __mmask32 first_of(int n)
{
    return n >= 32 ? 0xffffffffu : (1u << n) - 1;
}

/* Rows of 16 dwords are transposed in place. */
static inline void transpose(__m512i r[16])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
}

/* 16 keys (n of them there) of 32 dimensions (mask) to one tile. */
static inline void pack_keys(uint16_t *dst, const uint16_t *const *key, int n, int dim, __mmask32 mask)
{
    __m512i r[16];
    for (int i = 0; i < 16; i++)
        r[i] = i < n ? _mm512_maskz_loadu_epi16(mask, key[i] + dim) : _mm512_setzero_si512();
    transpose(r);
    for (int i = 0; i < 16; i++)
        _mm512_store_si512(dst + i * 32, r[i]);
}

/* 32 keys (n of them there) of 32 dimensions to two tiles; odd words of a pair come from the key 16 after. Returns the greatest absolute
 * values by their bits: at least BF16_INFINITY where one is not finite. */
static inline __m512i pack_values(uint16_t *dst, const uint16_t *const *value, int n, int dim, __mmask32 mask)
{
    static const uint16_t lanes[2][32] = {
        {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
    __m512i low = _mm512_loadu_si512(lanes[0]), high = _mm512_loadu_si512(lanes[1]);
    __m512i size = _mm512_set1_epi16(0x7fff), most = _mm512_setzero_si512();
    for (int i = 0; i < 16; i++) {
        __m512i a = i < n ? _mm512_maskz_loadu_epi16(mask, value[i] + dim) : _mm512_setzero_si512();
        __m512i b = i + 16 < n ? _mm512_maskz_loadu_epi16(mask, value[i + 16] + dim) : _mm512_setzero_si512();
        most = _mm512_max_epu16(most, _mm512_max_epu16(_mm512_and_si512(a, size), _mm512_and_si512(b, size)));
        _mm512_store_si512(dst + i * 32, _mm512_permutex2var_epi16(a, low, b));
        _mm512_store_si512(dst + TILE_SIZE + i * 32, _mm512_permutex2var_epi16(a, high, b));
    }
    return most;
}
