/* Attention in float32, at the width of the level that includes this file: the online softmax of FlashAttention (arXiv 2205.14135).
 * A block of keys is laid out in f32 once (K transposed); ROWS items are multiplied at a time. Weights of unseen keys are 0. */
#pragma once
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/simd.h"
#include <math.h>

enum {
    KEYS = ATTENTION_KEYS,
    ITEMS = 16,
    ROWS = 4,
    MAX_HEAD = ATTENTION_MAX_HEAD,
    TASK_ITEMS = ATTENTION_TASK_ITEMS,
    VECTORS = VL == 16 ? 4 : 2, /* held at once for each row */
    WIDTH = VECTORS * VL,
    SUMS = SUM_LANES / VL,
};

struct work {
    float k[MAX_HEAD * KEYS];         /* [hd][KEYS] */
    float v[KEYS * MAX_HEAD];         /* [KEYS][hd_pad] */
    float q[TASK_ITEMS * MAX_HEAD];   /* [items][hd] */
    float out[TASK_ITEMS * MAX_HEAD]; /* [items][hd_pad] */
    float sum[TASK_ITEMS][SUM_LANES], max[TASK_ITEMS];
    float score[ITEMS][KEYS];
    int hd, hd_pad;      /* hd_pad: a multiple of WIDTH */
    uint64_t bad_values; /* keys of the block, by bit, whose V is not finite */
} __attribute__((aligned(64)));

static int whole_widths(int n)
{
    return (n + WIDTH - 1) / WIDTH * WIDTH;
}

static void load_head(float *dst, const void *src, enum dtype type, int hd)
{
    if (type == DTYPE_F32)
        memcpy(dst, src, hd * sizeof(float));
    else
        for (int i = 0; i < hd; i++)
            dst[i] = bf16_to_f32(((const uint16_t *)src)[i]);
}

static void begin(void *work, const struct attention_task *t)
{
    struct work *w = work;
    w->hd = t->hs->hd;
    w->hd_pad = (w->hd + WIDTH - 1) / WIDTH * WIDTH;
    for (int i = 0; i < t->n_items; i++) {
        load_head(w->q + (size_t)i * w->hd, attention_query(t, &t->items[i]), t->type, w->hd);
        w->max[i] = -INFINITY;
    }
    memset(w->sum, 0, sizeof(w->sum[0]) * t->n_items);
    memset(w->out, 0, sizeof(float) * t->n_items * w->hd_pad);
    if (w->hd_pad > w->hd) /* columns that no value fills */
        memset(w->v, 0, sizeof(float) * KEYS * w->hd_pad);
}

/* Values that are not finite become 0, or they would reach items that do not see them (0 * NaN). Whether there were any. */
static bool clear_bad(float *v, int n)
{
    int bad = 0;
    for (int i = 0; i < n; i++) {
        bad |= v[i] - v[i] != 0;
        v[i] = v[i] - v[i] != 0 ? 0 : v[i];
    }
    return bad;
}

static inline __m256 load_8(const void *p, enum dtype type, int i)
{
    if (type == DTYPE_F32)
        return _mm256_loadu_ps((const float *)p + i);
    __m128i half = _mm_loadu_si128((const void *)((const uint16_t *)p + i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* dst[i][j] = r[j][i], rows of dst being KEYS apart. */
static inline void store_transposed(float *dst, const __m256 r[8])
{
    __m256 pairs[8], fours[8];
    for (int i = 0; i < 8; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            fours[i + 2 * j] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0x44);
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(pairs[i + j], pairs[i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(dst + i * KEYS, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20));
        _mm256_storeu_ps(dst + (i + 4) * KEYS, _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31));
    }
}

/* Eight keys become columns of k. */
static inline __attribute__((always_inline)) void pack_keys(float *k, const void *const keys[8], enum dtype type, int hd)
{
    for (int i = 0; i < hd; i += 8) {
        __m256 r[8];
        for (int j = 0; j < 8; j++)
            r[j] = load_8(keys[j], type, i);
        store_transposed(k + (size_t)i * KEYS, r);
    }
}

/* Whole WIDTHs of keys, zeros where there is none; scores of other keys are not computed. Values: of the n keys. */
static void pack(void *work, const struct attention_task *t, const int *table, int n)
{
    static const float zeros[MAX_HEAD];
    struct work *w = work;
    w->bad_values = 0;
    for (int first = 0; first < whole_widths(n); first += 8) {
        const void *keys[8];
        for (int j = 0; j < 8; j++)
            keys[j] = first + j < n ? attention_key(t, table[first + j]) : zeros;
        if (t->type == DTYPE_F32)
            pack_keys(w->k + first, keys, DTYPE_F32, w->hd);
        else
            pack_keys(w->k + first, keys, DTYPE_BF16, w->hd);
    }
    for (int j = 0; j < n; j++) {
        load_head(w->v + (size_t)j * w->hd_pad, attention_value(t, table[j]), t->type, w->hd);
        w->bad_values |= (uint64_t)clear_bad(w->v + (size_t)j * w->hd_pad, w->hd) << j;
    }
}

/* c[rows, WIDTH] += a[rows, n] b[n, WIDTH], one chain of n multiply-adds an element. */
static inline __attribute__((always_inline)) void multiply_rows(float *c, int ldc, const float *a, int lda, const float *b, int ldb, int n,
                                                                const int rows)
{
    vf acc[ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int x = 0; x < VECTORS; x++)
            acc[r][x] = vf_load(c + r * ldc + x * VL);
    for (int i = 0; i < n; i++) {
        vf bv[VECTORS];
        for (int x = 0; x < VECTORS; x++)
            bv[x] = vf_load(b + (size_t)i * ldb + x * VL);
        for (int r = 0; r < rows; r++) {
            vf av = vf_set(a[(size_t)r * lda + i]);
            for (int x = 0; x < VECTORS; x++)
                acc[r][x] = vf_fma(av, bv[x], acc[r][x]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int x = 0; x < VECTORS; x++)
            vf_store(c + r * ldc + x * VL, acc[r][x]);
}

/* The same for any number of rows, and columns a multiple of WIDTH. */
static void multiply(float *c, int ldc, const float *a, int lda, const float *b, int ldb, int n, int rows, int columns)
{
    for (int x = 0; x < columns; x += WIDTH) {
        int r = 0;
        for (; r + ROWS <= rows; r += ROWS)
            multiply_rows(c + (size_t)r * ldc + x, ldc, a + (size_t)r * lda, lda, b + x, ldb, n, ROWS);
        float *rest = c + (size_t)r * ldc + x;
        if (rows - r == 3)
            multiply_rows(rest, ldc, a + (size_t)r * lda, lda, b + x, ldb, n, 3);
        else if (rows - r == 2)
            multiply_rows(rest, ldc, a + (size_t)r * lda, lda, b + x, ldb, n, 2);
        else if (rows - r == 1)
            multiply_rows(rest, ldc, a + (size_t)r * lda, lda, b + x, ldb, n, 1);
    }
}

/* Scores of an item to weights, in place; `seen` keys of the block count. */
static void soften(struct work *w, int item, float *s, int seen, float scale)
{
    vf most = vf_set(-INFINITY), c = vf_set(scale);
    for (int j = seen; j < KEYS; j++)
        s[j] = -INFINITY;
    for (int j = 0; j < KEYS; j += VL)
        most = vf_max(most, vf_load(s + j));
    float before = w->max[item], after = vf_greatest(most);
    if (after > before) {
        float keep[VL];
        vf_store(keep, vf_exp2(vf_mul(vf_sub(vf_set(before), vf_set(after)), c)));
        vf f = before == -INFINITY ? vf_set(0) : vf_set(keep[0]);
        float *out = w->out + (size_t)item * w->hd_pad;
        for (int l = 0; l < SUM_LANES; l += VL)
            vf_store(w->sum[item] + l, vf_mul(vf_load(w->sum[item] + l), f));
        for (int i = 0; i < w->hd_pad; i += VL)
            vf_store(out + i, vf_mul(vf_load(out + i), f));
        w->max[item] = after;
    }
    vf base = vf_set(-w->max[item] * scale), sum[SUMS];
    for (int j = 0; j < KEYS; j += VL)
        vf_store(s + j, vf_exp2(vf_fma(vf_load(s + j), c, base)));
    for (int j = seen; j < KEYS; j++)
        s[j] = 0;
    for (int l = 0; l < SUMS; l++)
        sum[l] = vf_load(w->sum[item] + l * VL);
    for (int j = 0; j < KEYS; j += SUM_LANES)
        for (int l = 0; l < SUMS; l++)
            sum[l] = vf_add(sum[l], vf_load(s + j + l * VL));
    for (int l = 0; l < SUMS; l++)
        vf_store(w->sum[item] + l * VL, sum[l]);
}

static void run_tile(void *work, const struct attention_task *t, int first, int n, int key0)
{
    struct work *w = work;
    int keys = min_int(KEYS, t->items[first + n - 1].visible - key0); /* items see ever more keys */
    memset(w->score, 0, sizeof(w->score[0]) * n);
    multiply(w->score[0], KEYS, w->q + (size_t)first * w->hd, w->hd, w->k, KEYS, w->hd, n, whole_widths(keys));
    for (int i = 0; i < n; i++) {
        int seen = t->items[first + i].visible - key0;
        if (seen > 0 && w->bad_values << (KEYS - min_int(seen, KEYS)))
            w->sum[first + i][0] = NAN; /* what attends to a value that is not finite is NaN */
        if (seen > 0)
            soften(w, first + i, w->score[i], min_int(seen, KEYS), t->scale);
        else
            memset(w->score[i], 0, sizeof(w->score[i]));
    }
    multiply(w->out + (size_t)first * w->hd_pad, w->hd_pad, w->score[0], KEYS, w->v, w->hd_pad, keys, n, w->hd_pad);
}

static void run(void *work, const struct attention_task *t, int first_tile, int key0)
{
    for (int i = first_tile * ITEMS; i < t->n_items; i += ITEMS)
        run_tile(work, t, i, min_int(ITEMS, t->n_items - i), key0);
}

/* Adding 0 makes a zero positive: whether one has lost its sign to unseen keys depends on the tile's other items. */
static void finish(void *work, const struct attention_task *t)
{
    struct work *w = work;
    for (int i = 0; i < t->n_items; i++) {
        float inverse = 1.0f / sum_tree(w->sum[i]);
        const float *src = w->out + (size_t)i * w->hd_pad;
        void *dst = attention_out(t, &t->items[i]);
        for (int d = 0; d < w->hd; d++)
            act_put(dst, t->type, d, src[d] * inverse + 0.0f);
    }
}

#define ATTENTION_VECTOR                   \
    {                                      \
        .work_bytes = sizeof(struct work), \
        .block_keys = KEYS,                \
        .tile_items = ITEMS,               \
        .begin = begin,                    \
        .pack = pack,                      \
        .run = run,                        \
        .finish = finish,                  \
    }
