/* Attention on AMX for bf16: the online softmax of FlashAttention (arXiv 2205.14135) over blocks of KEYS keys, aligned to the key's index.
 *
 * A block is brought into tile order once (K as pairs of dimensions by keys, V as pairs of keys by dimensions):
 * scores = Q K^T, weights p = 2^(c s - c m) rounded to bf16, out += P V in f32.
 *
 * m is a reference, not quite the maximum: it moves to a block's greatest score only when that is more than SLACK above it (in powers
 * of two), so that the sums are rarely rescaled; p stays below 2^SLACK, and the quotient at the end does not depend on m. An item decides
 * by its own scores. Keys that an item does not see have p = 0, which adds nothing. */
#include <math.h>
#include "kernels/cpu/amx.h"
#include "kernels/cpu/attention.h"

enum {
    KEYS = 64, ITEMS = 32, LANES = 16, STEP = 32, SLACK = 8,
    MAX_HEAD = ATTENTION_MAX_HEAD, TASK_ITEMS = ATTENTION_TASK_ITEMS,
    TILE_SIZE = 512,            /* bf16 values of a tile */
};

struct work {
    uint16_t k[KEYS / 16 * (MAX_HEAD / STEP) * TILE_SIZE];   /* [key tile][dim step][16 dim pairs][16 keys][2] */
    uint16_t v[KEYS / STEP * (MAX_HEAD / 16) * TILE_SIZE];   /* [key step][dim tile][16 key pairs][16 dims][2] */
    uint16_t q[TASK_ITEMS * MAX_HEAD];                       /* [tile][dim step][ITEMS][STEP] */
    float out[TASK_ITEMS * MAX_HEAD];                        /* [tile][ITEMS][hd_pad] */
    float sum[TASK_ITEMS][LANES];
    float max[TASK_ITEMS];
    float score[ITEMS][KEYS];                                /* weights, in bf16, take the first half of a row */
    int steps;                                               /* dim steps of a head; hd_pad = steps * STEP */
} __attribute__((aligned(64)));

static inline __mmask32 first_of(int n) { return n >= 32 ? 0xffffffffu : (1u << n) - 1; }

static inline __mmask16 first_lanes(int n) { return n >= LANES ? 0xffff : n > 0 ? (1u << n) - 1 : 0; }

/* ---- keys and values into tiles ---- */

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
static void pack_keys(uint16_t *dst, const uint16_t *const *key, int n, int dim, __mmask32 mask)
{
    __m512i r[16];
    for (int i = 0; i < 16; i++)
        r[i] = i < n ? _mm512_maskz_loadu_epi16(mask, key[i] + dim) : _mm512_setzero_si512();
    transpose(r);
    for (int i = 0; i < 16; i++)
        _mm512_store_si512(dst + i * 32, r[i]);
}

/* 32 keys (n of them there) of 32 dimensions to two tiles; odd words of a pair come from the second key. */
static void pack_values(uint16_t *dst, const uint16_t *const *value, int n, int dim, __mmask32 mask)
{
    static const uint16_t lanes[2][32] = {
        {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
        {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
    __m512i low = _mm512_loadu_si512(lanes[0]), high = _mm512_loadu_si512(lanes[1]);
    for (int i = 0; i < 32; i += 2) {
        __m512i a = i < n ? _mm512_maskz_loadu_epi16(mask, value[i] + dim) : _mm512_setzero_si512();
        __m512i b = i + 1 < n ? _mm512_maskz_loadu_epi16(mask, value[i + 1] + dim) : _mm512_setzero_si512();
        _mm512_store_si512(dst + i / 2 * 32, _mm512_permutex2var_epi16(a, low, b));
        _mm512_store_si512(dst + TILE_SIZE + i / 2 * 32, _mm512_permutex2var_epi16(a, high, b));
    }
}

/* Rounded up to whole steps with zeros. */
static void pack(void *work, const struct attention_task *t, const int *table, int n)
{
    struct work *w = work;
    const uint16_t *key[KEYS], *value[KEYS];
    for (int j = 0; j < n; j++) {
        key[j] = attention_key(t, table[j]);
        value[j] = attention_value(t, table[j]);
    }
    for (int j = 0; j < n; j += STEP)
        for (int s = 0; s < w->steps; s++) {
            __mmask32 mask = first_of(t->hs->hd - s * STEP);
            for (int half = 0; half < 2; half++)
                pack_keys(w->k + ((size_t)(j / 16 + half) * w->steps + s) * TILE_SIZE, key + j + half * 16, n - j - half * 16, s * STEP, mask);
            pack_values(w->v + ((size_t)(j / STEP) * w->steps + s) * 2 * TILE_SIZE, value + j, n - j, s * STEP, mask);
        }
}

/* ---- one tile of items against a block of keys ---- */

/* score[., key .. key+31] of 16 or 32 items. */
static inline __attribute__((always_inline)) void multiply_scores(struct work *w, const uint16_t *q, int key, const bool both)
{
    const uint16_t *k = w->k + (size_t)(key / 16) * w->steps * TILE_SIZE;
    float *c = &w->score[0][key];
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < w->steps; s++, q += 2 * TILE_SIZE, k += TILE_SIZE) {
        _tile_loadd(4, q, 64);
        _tile_loadd(6, k, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, k + w->steps * TILE_SIZE, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, q + TILE_SIZE, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, sizeof(w->score[0]));
    _tile_stored(1, c + 16, sizeof(w->score[0]));
    if (both) {
        _tile_stored(2, c + 16 * KEYS, sizeof(w->score[0]));
        _tile_stored(3, c + 16 * KEYS + 16, sizeof(w->score[0]));
    }
}

/* 32 dimensions of out += weights V over `keys` keys, a multiple of STEP. */
static inline __attribute__((always_inline)) void multiply_values(struct work *w, float *out, int step, int keys, bool first,
                                                                 const bool both)
{
    int ld = w->steps * STEP, bytes = ld * 4;
    const uint16_t *v = w->v + (size_t)step * 2 * TILE_SIZE;
    out += step * STEP;
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, out, bytes);
        _tile_loadd(1, out + 16, bytes);
        if (both) {
            _tile_loadd(2, out + 16 * ld, bytes);
            _tile_loadd(3, out + 16 * ld + 16, bytes);
        }
    }
    for (int j = 0; j < keys; j += STEP, v += (size_t)w->steps * 2 * TILE_SIZE) {
        _tile_loadd(4, (uint16_t *)w->score[0] + j, sizeof(w->score[0]));
        _tile_loadd(6, v, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, v + TILE_SIZE, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, (uint16_t *)w->score[16] + j, sizeof(w->score[0]));
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, out, bytes);
    _tile_stored(1, out + 16, bytes);
    if (both) {
        _tile_stored(2, out + 16 * ld, bytes);
        _tile_stored(3, out + 16 * ld + 16, bytes);
    }
}

/* 2^x for x < 127 within 3e-6 of itself, far less than what bf16 keeps of it; 0 far below the normal range, NaN for infinities.
 * n + f = x, |f| <= 1/2; a minimax polynomial of 2^f. */
static inline __m512 exp2_512(__m512 x)
{
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
    __m512 p = _mm512_set1_ps(0x1.3997d6p-7f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ca1442p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ec06dap-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e0dcp-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ffffe8p-1f));
    return _mm512_scalef_ps(p, n);
}

static void rescale(struct work *w, float *out, int item, int n, float factor)
{
    __m512 f = _mm512_set1_ps(factor);
    _mm512_store_ps(w->sum[item], _mm512_mul_ps(_mm512_load_ps(w->sum[item]), f));
    for (int i = 0; i < n; i += LANES)
        _mm512_store_ps(out + i, _mm512_mul_ps(_mm512_load_ps(out + i), f));
}

/* Scores of one item to weights: the first `seen` keys of the block count, `keys` are filled. out[hd_pad]: its sums so far. With seen
 * and keys constant at KEYS, no mask is left. */
static inline __attribute__((always_inline)) void soften(struct work *w, int item, float *out, int seen, int keys, float scale)
{
    const float *s = w->score[item % ITEMS];
    uint16_t *p = (uint16_t *)w->score[item % ITEMS];   /* a pair of vectors is read before it is written over */
    __m512 most = _mm512_set1_ps(-INFINITY), c = _mm512_set1_ps(scale);
    for (int j = 0; j < keys; j += LANES) {
        __m512 v = _mm512_load_ps(s + j);
        most = _mm512_max_ps(most, seen == KEYS ? v : _mm512_mask_blend_ps(first_lanes(seen - j), _mm512_set1_ps(-INFINITY), v));
    }
    float block = _mm512_reduce_max_ps(most), before = w->max[item];
    if (__builtin_expect((block - before) * scale > SLACK, 0)) {
        if (before != -INFINITY)
            rescale(w, out, item, w->steps * STEP, _mm512_cvtss_f32(exp2_512(_mm512_set1_ps((before - block) * scale))));
        w->max[item] = block;
    }
    __m512 base = _mm512_set1_ps(-w->max[item] * scale), sum = _mm512_load_ps(w->sum[item]);
    for (int j = 0; j < keys; j += 2 * LANES) {
        __m512 p0 = exp2_512(_mm512_fmadd_ps(_mm512_load_ps(s + j), c, base));
        __m512 p1 = exp2_512(_mm512_fmadd_ps(_mm512_load_ps(s + j + LANES), c, base));
        if (seen < KEYS) {
            p0 = _mm512_maskz_mov_ps(first_lanes(seen - j), p0);
            p1 = _mm512_maskz_mov_ps(first_lanes(seen - j - LANES), p1);
        }
        sum = _mm512_add_ps(sum, _mm512_add_ps(p0, p1));
        _mm512_store_si512(p + j, (__m512i)_mm512_cvtne2ps_pbh(p1, p0));
    }
    _mm512_store_ps(w->sum[item], sum);
}

/* An item that sees no key of the block. */
static void clear(struct work *w, int item) { memset(w->score[item % ITEMS], 0, sizeof(w->score[0]) / 2); }

/* With `both` constant, no test of it is left in the loops. */
static inline __attribute__((always_inline)) void run_tile(struct work *w, const struct attention_task *t, int first, int n, int key0,
                                                           const bool both)
{
    int hd_pad = w->steps * STEP, last = t->items[first + n - 1].visible - key0;
    int keys = (min_int(last, KEYS) + STEP - 1) / STEP * STEP;
    float *out = w->out + (size_t)first * hd_pad;
    for (int j = 0; j < keys; j += STEP)
        multiply_scores(w, w->q + (size_t)first * hd_pad, j, both);
    for (int i = 0; i < n; i++) {
        int seen = t->items[first + i].visible - key0;
        if (seen >= KEYS)
            soften(w, first + i, out + (size_t)i * hd_pad, KEYS, KEYS, t->scale);
        else if (seen > 0)
            soften(w, first + i, out + (size_t)i * hd_pad, seen, keys, t->scale);
        else
            clear(w, first + i);
    }
    for (int s = 0; s < w->steps; s++)
        multiply_values(w, out, s, keys, key0 == 0, both);
}

static void run(void *work, const struct attention_task *t, int first, int n, int key0)
{
    if (n > 16)
        run_tile(work, t, first, n, key0, true);
    else
        run_tile(work, t, first, n, key0, false);
}

static void begin(void *work, const struct attention_task *t)
{
    struct work *w = work;
    int hd = t->hs->hd, tile = ITEMS * STEP;
    w->steps = (hd + STEP - 1) / STEP;
    for (int i = 0; i < t->n_items; i++) {
        const uint16_t *src = attention_query(t, &t->items[i]);
        uint16_t *dst = w->q + (size_t)(i / ITEMS) * w->steps * tile + i % ITEMS * STEP;
        for (int s = 0; s < w->steps; s++)
            _mm512_storeu_si512(dst + s * tile, _mm512_maskz_loadu_epi16(first_of(hd - s * STEP), src + s * STEP));
        w->max[i] = -INFINITY;
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

const struct attention_kernel attention_amx = {
    .work_bytes = sizeof(struct work), .block_keys = KEYS, .tile_items = ITEMS, .start = amx_begin, .begin = begin, .pack = pack,
    .run = run, .finish = finish,
};
