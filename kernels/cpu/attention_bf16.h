/* Attention in bf16, without its matrix products, which the level that includes this file adds: the online softmax of FlashAttention
 * (arXiv 2205.14135) over blocks of KEYS keys, aligned to the key's index.
 *
 * A block is brought into tile order once (K as pairs of dimensions by keys, V as pairs of keys by dimensions):
 * scores = Q K^T, weights p = 2^(c s - c m) rounded to bf16, out += P V in f32.
 *
 * m is a reference, not quite the maximum: the score of key 0, until weights would be greater than MOST; then it moves to the block's greatest
 * score. So the sums are rarely rescaled, and the quotient at the end does not depend on m. An item decides by its own scores. Keys that an
 * item does not see have p = 0, which adds nothing. */
#pragma once
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_bf16_pack.h"
#include <math.h>

enum {
    KEYS = 2 * STEP,
    ITEMS = 16,
    LANES = 16,
    MAX_HEAD = ATTENTION_MAX_HEAD,
    TASK_ITEMS = ATTENTION_TASK_ITEMS,
    MOST = 1024,                                  /* that four weights may be together */
    MAX_PRODUCTS = KEYS / STEP + MAX_HEAD / STEP, /* of a tile: both kinds */
};

struct work {
    uint16_t k[KEYS / 16 * (MAX_HEAD / STEP) * TILE_SIZE]; /* [key tile][dim step][16 dim pairs][16 keys][2] */
    uint16_t v[KEYS / STEP * (MAX_HEAD / 16) * TILE_SIZE]; /* [key step][dim tile][16 key pairs][16 dims][2] */
    uint16_t q[TASK_ITEMS * MAX_HEAD];                     /* [tile][dim step][ITEMS][STEP] */
    float out[TASK_ITEMS * MAX_HEAD];                      /* [tile][ITEMS][hd_pad] */
    float sum[TASK_ITEMS][LANES];
    float base[TASK_ITEMS];      /* minus the reference, scaled */
    float score[2][ITEMS][KEYS]; /* [tile % 2]: two at once; weights, in bf16, take the first half of a row */
    uint16_t zeros[MAX_HEAD];
    uint64_t bad_values; /* keys of the block, by bit, whose V is not finite */
    int steps;           /* dim steps of a head; hd_pad = steps * STEP */
} __attribute__((aligned(64)));

#define ALL_KEYS (~(__mmask64)0)

/* ---- keys and values into tiles ---- */

/* Rounded up to whole steps with zeros. Whether all values are finite. */
static bool pack_block(struct work *w, const uint16_t *const *key, const uint16_t *const *value, int n, int hd)
{
    __m512i most = _mm512_setzero_si512();
    for (int j = 0; j < n; j += STEP)
        for (int s = 0; s < w->steps; s++) {
            __mmask32 mask = first_of(hd - s * STEP);
            uint16_t *k = w->k + ((size_t)(j / 16) * w->steps + s) * TILE_SIZE;
            uint16_t *v = w->v + ((size_t)(j / STEP) * w->steps + s) * 2 * TILE_SIZE;
            pack_keys(k, key + j, n - j, s * STEP, mask);
            pack_keys(k + w->steps * TILE_SIZE, key + j + 16, n - j - 16, s * STEP, mask);
            most = _mm512_max_epu16(most, pack_values(v, value + j, n - j, s * STEP, mask));
        }
    return !_mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(BF16_INFINITY));
}

/* Values that are not finite would reach items that do not see them (0 * NaN): such keys get zeros, and are noted. */
static void clear_bad_values(struct work *w, const uint16_t **value, int n, int hd)
{
    for (int j = 0; j < n; j++) {
        bool bad = false;
        for (int i = 0; i < hd; i++)
            bad |= (value[j][i] & 0x7fff) >= BF16_INFINITY;
        w->bad_values |= (uint64_t)bad << j;
        if (bad)
            value[j] = w->zeros;
    }
}

static void pack(void *work, const struct attention_task *t, const int *table, int n)
{
    struct work *w = work;
    const uint16_t *key[KEYS], *value[KEYS];
    for (int j = 0; j < n; j++) {
        key[j] = attention_key(t, table[j]);
        value[j] = attention_value(t, table[j]);
    }
    w->bad_values = 0;
    if (!pack_block(w, key, value, n, t->hs->hd)) {
        clear_bad_values(w, value, n, t->hs->hd);
        pack_block(w, key, value, n, t->hs->hd);
    }
}

/* ---- products ---- */

/* c[16,32] (f32) = or += the sum over s < steps of a_s [16 rows, STEP] times two tiles, b_s and the one b_gap after it. Strides are in
 * bytes. */
struct product {
    char *c;
    const char *a, *b;
    long ldc, lda, a_next, b_next, b_gap;
    int steps;
    bool add;
};

static int tile_rows(const struct attention_task *t, int tile)
{
    return min_int(ITEMS, t->n_items - tile * ITEMS);
}

/* Keys of the block at key0 that some item of the tile sees, up to whole steps. */
static int tile_keys(const struct attention_task *t, int tile, int key0)
{
    int last = t->items[tile * ITEMS + tile_rows(t, tile) - 1].visible - key0;
    return (min_int(last, KEYS) + STEP - 1) / STEP * STEP;
}

/* Scores of a tile: q K^T. Returns how many products that is. */
static int list_scores(struct work *w, const struct attention_task *t, int tile, int key0, struct product *ret)
{
    int n = tile_keys(t, tile, key0) / STEP;
    for (int j = 0; j < n; j++)
        ret[j] = (struct product){.c = (char *)&w->score[tile % 2][0][j * STEP],
                                  .ldc = sizeof(w->score[0][0]),
                                  .steps = w->steps,
                                  .a = (char *)(w->q + (size_t)tile * w->steps * TILE_SIZE),
                                  .lda = 64,
                                  .a_next = TILE_BYTES,
                                  .b = (char *)(w->k + (size_t)j * 2 * w->steps * TILE_SIZE),
                                  .b_next = TILE_BYTES,
                                  .b_gap = w->steps * TILE_BYTES};
    return n;
}

/* out += weights V of a tile. */
static int list_values(struct work *w, const struct attention_task *t, int tile, int key0, struct product *ret)
{
    int ld = w->steps * STEP, steps = tile_keys(t, tile, key0) / STEP;
    for (int s = 0; s < w->steps; s++)
        ret[s] = (struct product){.c = (char *)(w->out + (size_t)tile * ITEMS * ld + s * STEP),
                                  .ldc = ld * 4,
                                  .add = key0 > 0,
                                  .steps = steps,
                                  .a = (char *)w->score[tile % 2],
                                  .lda = sizeof(w->score[0][0]),
                                  .a_next = 64,
                                  .b = (char *)(w->v + (size_t)s * 2 * TILE_SIZE),
                                  .b_next = w->steps * 2 * TILE_BYTES,
                                  .b_gap = TILE_BYTES};
    return w->steps;
}

/* Whether all items of a tile see the whole block. */
static bool sees_all(const struct attention_task *t, int tile, int key0)
{
    return t->items[tile * ITEMS].visible - key0 >= KEYS;
}

/* ---- scores to weights ---- */

/* 2^x within 8e-5 of itself, far less than what bf16 keeps of it; NaN stays NaN. f = x - floor(x); a minimax polynomial of 2^f. */
static inline __m512 exp2_512(__m512 x)
{
    __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(f, _mm512_set1_ps(0x1.3f96b4p-4f), _mm512_set1_ps(0x1.cefc54p-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.644448p-1f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.fff632p-1f)), x);
}

/* To bf16, to nearest: a[i] at 2i, b[i] at 2i + 1. Integer instructions, which run while AMX's tile unit holds the other float unit. */
static inline __m512i pack_pairs(__m512 a, __m512 b)
{
    __m512i half = _mm512_set1_epi32(0x8000), high = _mm512_set1_epi32((int)0xffff0000);
    __m512i low = _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(a), half), 16);
    return _mm512_ternarylogic_epi32(low, _mm512_add_epi32(_mm512_castps_si512(b), half), high, 0xf8);
}

/* The reference of an item moves to the greatest score of the block. Scores that are not finite make the item's sum NaN. */
static void raise_reference(struct work *w, const struct attention_task *t, int item, __mmask64 seen)
{
    const float *s = w->score[item / ITEMS % 2][item % ITEMS];
    __m512 most = _mm512_set1_ps(-INFINITY);
    __mmask16 odd = 0;
    for (int j = 0; j < KEYS; j += LANES) {
        __mmask16 m = (__mmask16)(seen >> j);
        __m512 v = _mm512_maskz_load_ps(m, s + j);
        odd |= _mm512_mask_cmp_ps_mask(m, v, v, _CMP_UNORD_Q);
        most = _mm512_mask_max_ps(most, m, most, v);
    }
    float max = _mm512_reduce_max_ps(most), before = w->base[item];
    if (odd || !isfinite(max)) {
        _mm512_store_ps(w->sum[item], _mm512_set1_ps(NAN));
        return;
    }
    w->base[item] = -max * t->scale;
    if (!(fabsf(before) < INFINITY) || before <= w->base[item])
        return;
    __m512 f = exp2_512(_mm512_set1_ps(w->base[item] - before));
    float *out = w->out + (size_t)item * w->steps * STEP;
    _mm512_store_ps(w->sum[item], _mm512_mul_ps(_mm512_load_ps(w->sum[item]), f));
    for (int i = 0; i < w->steps * STEP; i += LANES)
        _mm512_store_ps(out + i, _mm512_mul_ps(_mm512_load_ps(out + i), f));
}

static void soften_raised(struct work *w, const struct attention_task *t, int item, __mmask64 seen, int keys);

/* Scores of one item to weights, in place; the first `keys` (KEYS or half of it) are there, those of `seen` count. With both constant
 * and full, no mask is left. */
static inline __attribute__((always_inline)) void soften(struct work *w, const struct attention_task *t, int item, __mmask64 seen,
                                                         const int keys, const bool raised)
{
    float *s = w->score[(unsigned)item / ITEMS % 2][(unsigned)item % ITEMS];
    __m512 c = _mm512_set1_ps(t->scale), base = _mm512_set1_ps(w->base[item]), p[KEYS / LANES];
    for (int j = 0; j < keys / LANES; j++) {
        p[j] = exp2_512(_mm512_fmadd_ps(_mm512_load_ps(s + j * LANES), c, base));
        if (seen != ALL_KEYS)
            p[j] = _mm512_maskz_mov_ps((__mmask16)(seen >> j * LANES), p[j]);
    }
    __m512 sum = _mm512_add_ps(p[0], p[1]);
    if (keys == KEYS)
        sum = _mm512_add_ps(sum, _mm512_add_ps(p[2], p[3]));
    if (!raised && __builtin_expect(_mm512_cmp_ps_mask(sum, _mm512_set1_ps(MOST), _CMP_NLE_UQ), 0)) {
        soften_raised(w, t, item, seen, keys);
        return;
    }
    _mm512_store_si512(s, pack_pairs(p[0], p[1]));
    if (keys == KEYS)
        _mm512_store_si512(s + LANES, pack_pairs(p[2], p[3]));
    _mm512_store_ps(w->sum[item], _mm512_add_ps(sum, _mm512_load_ps(w->sum[item])));
}

static __attribute__((noinline)) void soften_raised(struct work *w, const struct attention_task *t, int item, __mmask64 seen, int keys)
{
    raise_reference(w, t, item, seen);
    if (keys == KEYS)
        soften(w, t, item, seen, KEYS, true);
    else
        soften(w, t, item, seen, KEYS / 2, true);
}

static __mmask64 seen_keys(int n)
{
    return n >= KEYS ? ALL_KEYS : n > 0 ? ((__mmask64)1 << n) - 1 : 0;
}

/* An item of a tile whose items do not all see the whole block. */
static __attribute__((noinline)) void soften_some(struct work *w, const struct attention_task *t, int item, int key0)
{
    int n = t->items[item].visible - key0;
    if (n <= 0)
        memset(w->score[item / ITEMS % 2][item % ITEMS], 0, sizeof(w->score[0][0]) / 2);
    else if (tile_keys(t, item / ITEMS, key0) == KEYS)
        soften(w, t, item, seen_keys(n), KEYS, false);
    else
        soften(w, t, item, seen_keys(n), KEYS / 2, false);
}

static inline __attribute__((always_inline)) void soften_item(struct work *w, const struct attention_task *t, int item, int key0,
                                                              bool whole)
{
    if (key0 == 0)
        w->base[item] = -w->score[(unsigned)item / ITEMS % 2][(unsigned)item % ITEMS][0] * t->scale;
    if (whole)
        soften(w, t, item, ALL_KEYS, KEYS, false);
    else
        soften_some(w, t, item, key0);
}

/* What attends to a value that is not finite is NaN. */
static void refuse_bad_values(struct work *w, const struct attention_task *t, int first, int key0)
{
    for (int i = first * ITEMS; i < t->n_items; i++)
        if (w->bad_values & seen_keys(t->items[i].visible - key0))
            _mm512_store_ps(w->sum[i], _mm512_set1_ps(NAN));
}

static void begin(void *work, const struct attention_task *t)
{
    struct work *w = work;
    int hd = t->hs->hd, tile = ITEMS * STEP;
    w->steps = (hd + STEP - 1) / STEP;
    memset(w->zeros, 0, sizeof(w->zeros));
    for (int i = 0; i < t->n_items; i++) {
        const uint16_t *src = attention_query(t, &t->items[i]);
        uint16_t *dst = w->q + (size_t)(i / ITEMS) * w->steps * tile + i % ITEMS * STEP;
        for (int s = 0; s < w->steps; s++)
            _mm512_storeu_si512(dst + s * tile, _mm512_maskz_loadu_epi16(first_of(hd - s * STEP), src + s * STEP));
        memset(w->sum[i], 0, sizeof(w->sum[i]));
    }
}

/* Adding 0 makes a zero positive: whether one has lost its sign to unseen keys depends on the tile's other items. */
static void finish(void *work, const struct attention_task *t)
{
    struct work *w = work;
    int hd = t->hs->hd;
    for (int i = 0; i < t->n_items; i++) {
        const float *src = w->out + (size_t)i * w->steps * STEP;
        uint16_t *dst = attention_out(t, &t->items[i]);
        __m512 inverse = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(_mm512_load_ps(w->sum[i])));
        for (int d = 0; d < hd; d += LANES) {
            __m512 v = _mm512_add_ps(_mm512_mul_ps(_mm512_load_ps(src + d), inverse), _mm512_setzero_ps());
            _mm256_mask_storeu_epi16(dst + d, (__mmask16)first_of(hd - d), (__m256i)_mm512_cvtneps_pbh(v));
        }
    }
}

/* Of a struct attention_kernel, all but `start` and `run`. */
#define ATTENTION_BF16 \
    .work_bytes = sizeof(struct work), .block_keys = KEYS, .tile_items = ITEMS, .begin = begin, .pack = pack, .finish = finish
