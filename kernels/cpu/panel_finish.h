/* The end of a matmul block and the packing of rows, in plain C that each level's file compiles with its own flags; nothing
 * is summed here, so every level gives the same bits for the same accumulators. */
#pragma once
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/panel.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
/* One instruction rounds 32 values; subnormal ones become 0. */
static inline void put_values(void *y, enum dtype type, const float *v, int n)
{
    int i = 0;
    if (type == DTYPE_BF16)
        for (; i + 16 <= n; i += 16)
            _mm256_storeu_si256((void *)((uint16_t *)y + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(v + i)));
    for (; i < n; i++)
        act_put(y, type, i, v[i]);
}
#else
static inline void put_values(void *y, enum dtype type, const float *v, int n)
{
    for (int i = 0; i < n; i++)
        act_put(y, type, i, v[i]);
}
#endif

static inline void finish_store(void *y, enum dtype type, const float *c, const float *bias, int n)
{
    float v[PANEL];
    for (int j = 0; j < n; j++)
        v[j] = c[j] + bias[j];
    put_values(y, type, v, n);
}

static inline void finish_residual(float *x, const float *c, const float *bias, float gate, int n)
{
    for (int j = 0; j < n; j++)
        x[j] += gate * (c[j] + bias[j]);
}

/* bias: n of gate, then n of up. */
static inline void finish_swiglu(void *y, enum dtype type, const float *c, const float *bias, int n)
{
    float v[PANEL / 2];
    for (int j = 0; j < n; j++)
        v[j] = silu_c(c[j] + bias[j]) * (c[j + PANEL / 2] + bias[n + j]);
    put_values(y, type, v, n);
}

/* n: columns of y. */
static inline __attribute__((always_inline)) void finish_row(const struct matmul_job *job, int r, size_t col, const float *c,
                                                             const float *bias, int n)
{
    void *y = (char *)job->y + ((size_t)r * job->ldy + col) * (job->y_type == DTYPE_F32 ? 4 : 2);
    if (job->epilogue == MATMUL_SWIGLU && job->y_type == DTYPE_F32)
        finish_swiglu(y, DTYPE_F32, c, bias, n < PANEL / 2 ? n : PANEL / 2);
    else if (job->epilogue == MATMUL_SWIGLU)
        finish_swiglu(y, DTYPE_BF16, c, bias, n < PANEL / 2 ? n : PANEL / 2);
    else if (job->epilogue == MATMUL_RESIDUAL)
        finish_residual(y, c, bias, job->gate ? job->gate[r] : 1.0f, n);
    else if (job->y_type == DTYPE_F32)
        finish_store(y, DTYPE_F32, c, bias, n);
    else
        finish_store(y, DTYPE_BF16, c, bias, n);
}

static inline void panel_finish_rows(const struct matmul_job *job, const float *c, int panel, const int *row_ids, int rows)
{
    static const float zeros[PANEL];
    const struct kern_matrix *w = job->w;
    int columns = matrix_panel_columns(w, panel), parts = job->epilogue == MATMUL_SWIGLU ? 2 : 1;
    size_t col = (size_t)panel * PANEL / parts;
    const float *bias = w->bias ? w->bias + (size_t)panel * PANEL : zeros;
    for (int i = 0; i < rows; i++, c += PANEL)
        if (columns == PANEL && parts == 2)   /* a width that the compiler knows */
            finish_row(job, row_ids[i], col, c, bias, PANEL / 2);
        else if (columns == PANEL)
            finish_row(job, row_ids[i], col, c, bias, PANEL);
        else
            finish_row(job, row_ids[i], col, c, bias, columns / parts);
}

/* Into the L2 cache; returns where the next step goes on. */
static inline const char *prefetch_lines(const char *p, int n)
{
    for (int i = 0; i < n; i++)
        __builtin_prefetch(p + i * 64, 0, 2);
    return p + n * 64;
}

/* ---- rows ---- */

static inline void pack_f32(float *dst, const void *src, enum dtype type, int n)
{
    for (int i = 0; i < n; i++)
        dst[i] = act_get(src, type, i);
    for (int i = n; i < K_STEP; i++)
        dst[i] = 0;
}

static inline void panel_pack_row_f32(void *dst, size_t term_size, int row, const void *src, enum dtype src_type, int k)
{
    for (int i = 0; i < k; i += K_STEP) {
        float *d = (float *)dst + (size_t)(i / K_STEP) * ROWS * K_STEP + row * K_STEP;
        int n = k - i < K_STEP ? k - i : K_STEP;
        if (src_type == DTYPE_F32 && n == K_STEP)
            pack_f32(d, act_at(src, DTYPE_F32, i), DTYPE_F32, K_STEP);
        else if (n == K_STEP)
            pack_f32(d, act_at(src, DTYPE_BF16, i), DTYPE_BF16, K_STEP);
        else
            pack_f32(d, act_at(src, src_type, i), src_type, n);
    }
}

static inline void panel_pack_row_bf16(void *dst, size_t term_size, int row, const void *src, enum dtype src_type, int k)
{
    uint16_t *d = (uint16_t *)dst + row * K_STEP;
    const uint16_t *s = src;
    int full = k / K_STEP * K_STEP;
    for (int i = 0; i < full; i += K_STEP, d += ROWS * K_STEP)
        memcpy(d, s + i, K_STEP * sizeof(*d));
    if (full < k) {
        memset(d, 0, K_STEP * sizeof(*d));
        memcpy(d, s + full, (k - full) * sizeof(*d));
    }
}

/* x = hi + mid + lo, exactly: 8 bits of the significand each. */
static inline void split3(uint16_t *hi, uint16_t *mid, uint16_t *lo, const float *x, int n)
{
    for (int i = 0; i < n; i++) {
        uint16_t h = f32_to_bf16(x[i]);
        float rest = x[i] - bf16_to_f32(h);
        uint16_t m = f32_to_bf16(rest);
        hi[i] = h;
        mid[i] = m;
        lo[i] = f32_to_bf16(rest - bf16_to_f32(m));
    }
}

static inline void panel_pack_row_split3(void *dst, size_t term_size, int row, const void *src, enum dtype src_type, int k)
{
    const float *x = src;
    for (int i = 0; i < k; i += K_STEP) {
        uint16_t *d = (uint16_t *)dst + (size_t)(i / K_STEP) * ROWS * K_STEP + row * K_STEP;
        float tail[K_STEP] = {0};
        bool full = k - i >= K_STEP;
        if (!full)
            memcpy(tail, x + i, (k - i) * sizeof(*tail));
        split3(d, d + term_size, d + 2 * term_size, full ? x + i : tail, K_STEP);
    }
}
