/* The end of a matmul block and the packing of rows, in plain C that each level's file compiles with its own flags; nothing
 * is summed here, so every level gives the same bits for the same accumulators. */
#pragma once
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/panel.h"

#ifdef __AVX512F__
#include "kernels/cpu/simd.h"
/* v[16] = silu(gate) up for bf16: within 2 units of the last place. The quotient by an estimate and one Newton step. */
static inline void swiglu_16(float *v, const float *gate, const float *gate_bias, const float *up, const float *up_bias)
{
    __m512 x = _mm512_add_ps(_mm512_loadu_ps(gate), _mm512_loadu_ps(gate_bias));
    __m512 e = vf_exp2(vf_min(vf_set(126), vf_mul(x, vf_set(-0x1.715476p0f)))); /* e^-x */
    __m512 d = _mm512_add_ps(_mm512_set1_ps(1), e), r = _mm512_rcp14_ps(d);
    r = _mm512_fmadd_ps(_mm512_fnmadd_ps(d, r, _mm512_set1_ps(1)), r, r);
    __m512 y = _mm512_add_ps(_mm512_loadu_ps(up), _mm512_loadu_ps(up_bias));
    _mm512_storeu_ps(v, _mm512_mul_ps(_mm512_mul_ps(x, r), y));
}
#endif

static inline void put_values(void *y, enum dtype type, const float *v, int n)
{
    int i = 0;
#ifdef __AVX512BF16__
    if (type == DTYPE_BF16) /* one instruction rounds 16 values; subnormal ones become 0 */
        for (; i + 16 <= n; i += 16)
            _mm256_storeu_si256((void *)((uint16_t *)y + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(v + i)));
#endif
    for (; i < n; i++)
        act_put(y, type, i, v[i]);
}

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
#ifdef __AVX512F__
    if (type != DTYPE_F32) {
        float padded[PANEL] = {0};
        if (n < PANEL / 2) {
            memcpy(padded, bias, n * sizeof(float));
            memcpy(padded + PANEL / 2, bias + n, n * sizeof(float));
            bias = padded;
        }
        swiglu_16(v, c, bias, c + PANEL / 2, bias + PANEL / 2);
        put_values(y, type, v, n);
        return;
    }
#endif
    for (int j = 0; j < n; j++)
        v[j] = portable_silu(c[j] + bias[j]) * (c[j + PANEL / 2] + bias[n + j]);
    put_values(y, type, v, n);
}

/* The epilogue of `job` for rows row_ids[0..rows-1] and `n` columns of y from `col` on. With `how`, `type` and n constants, nothing is left
 * of the choices. */
static inline __attribute__((always_inline)) void finish_rows(const struct matmul_job *job, enum matmul_epilogue how, enum dtype type,
                                                              size_t col, const float *c, const float *bias, int n, const int *row_ids,
                                                              int rows)
{
    for (int i = 0; i < rows; i++, c += PANEL) {
        void *y = act_at_mut(job->y, type, row_ids[i] * job->ldy + col);
        if (how == MATMUL_SWIGLU)
            finish_swiglu(y, type, c, bias, n);
        else if (how == MATMUL_RESIDUAL)
            finish_residual(y, c, bias, job->gate ? job->gate[row_ids[i]] : 1.0f, n);
        else
            finish_store(y, type, c, bias, n);
    }
}

static inline __attribute__((always_inline)) void finish_columns(const struct matmul_job *job, size_t col, const float *c,
                                                                 const float *bias, int n, const int *row_ids, int rows)
{
    if (job->epilogue == MATMUL_RESIDUAL)
        finish_rows(job, MATMUL_RESIDUAL, DTYPE_F32, col, c, bias, n, row_ids, rows);
    else if (job->epilogue == MATMUL_STORE && job->y_type == DTYPE_F32)
        finish_rows(job, MATMUL_STORE, DTYPE_F32, col, c, bias, n, row_ids, rows);
    else if (job->epilogue == MATMUL_STORE)
        finish_rows(job, MATMUL_STORE, DTYPE_BF16, col, c, bias, n, row_ids, rows);
    else if (job->y_type == DTYPE_F32)
        finish_rows(job, MATMUL_SWIGLU, DTYPE_F32, col, c, bias, min_int(n, PANEL / 2), row_ids, rows);
    else
        finish_rows(job, MATMUL_SWIGLU, DTYPE_BF16, col, c, bias, min_int(n, PANEL / 2), row_ids, rows);
}

static inline void panel_finish_rows(const struct matmul_job *job, const float *c, int panel, const int *row_ids, int rows)
{
    static const float zeros[PANEL];
    const struct kern_matrix *w = job->w;
    int parts = job->epilogue == MATMUL_SWIGLU ? 2 : 1, n = matrix_panel_columns(w, panel) / parts;
    size_t col = (size_t)panel * PANEL / parts;
    const float *bias = w->bias ? w->bias + (size_t)panel * PANEL : zeros;
    if (n == PANEL / parts)
        finish_columns(job, col, c, bias, PANEL, row_ids, rows); /* a width that the compiler knows */
    else
        finish_columns(job, col, c, bias, n, row_ids, rows);
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

static inline void panel_pack_row_f32(void *dst, size_t term_size, int rows, int row, const void *src, enum dtype src_type, int k)
{
    for (int i = 0; i < k; i += K_STEP) {
        float *d = (float *)dst + ((size_t)(i / K_STEP) * rows + row) * K_STEP;
        int n = k - i < K_STEP ? k - i : K_STEP;
        if (src_type == DTYPE_F32 && n == K_STEP)
            pack_f32(d, act_at(src, DTYPE_F32, i), DTYPE_F32, K_STEP);
        else if (n == K_STEP)
            pack_f32(d, act_at(src, DTYPE_BF16, i), DTYPE_BF16, K_STEP);
        else
            pack_f32(d, act_at(src, src_type, i), src_type, n);
    }
}

static inline void panel_pack_row_bf16(void *dst, size_t term_size, int rows, int row, const void *src, enum dtype src_type, int k)
{
    uint16_t *d = (uint16_t *)dst + row * K_STEP;
    const uint16_t *s = src;
    int full = k / K_STEP * K_STEP;
    for (int i = 0; i < full; i += K_STEP, d += (size_t)rows * K_STEP)
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

static inline void panel_pack_row_split3(void *dst, size_t term_size, int rows, int row, const void *src, enum dtype src_type, int k)
{
    const float *x = src;
    for (int i = 0; i < k; i += K_STEP) {
        uint16_t *d = (uint16_t *)dst + ((size_t)(i / K_STEP) * rows + row) * K_STEP;
        float tail[K_STEP] = {0};
        bool full = k - i >= K_STEP;
        if (!full)
            memcpy(tail, x + i, (k - i) * sizeof(*tail));
        split3(d, d + term_size, d + 2 * term_size, full ? x + i : tail, K_STEP);
    }
}
