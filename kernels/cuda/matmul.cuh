/* Weight matrices as the CUDA backend keeps them, and what the matmul kernels share.
 *
 * No library: a matmul has fused ends (bias, gate and residual, SwiGLU) and row sets whose size only the device knows, and an output
 * element must be summed in the same order whatever the number of rows. Here each element is one chain over k in ascending
 * order, so tile shapes may be chosen by speed alone. */
#pragma once
#include "kernels/cuda/common.cuh"

struct kern_matrix {
    enum matrix_kind kind;
    int n, k;     /* outputs (GATE_UP: of gate and of up, each) and inputs */
    int rows, ld; /* packed rows, and elements from one to the next: a multiple of 8, padded with zeros */
    void *data;   /* [rows, ld] act (ACCURATE: f32). GATE_UP: rows 16 g .. are 8 of gate, then the same 8 of up */
    float *bias;  /* [rows] in packed order, or NULL */
    size_t bytes;
    /* ACCURATE on tensor cores: the weights as a sum of `n_terms` 16-bit numbers, term t at columns t * term_ld ..; largest term last. Level mma: bf16.
     * Level wgmma: f16, all times 1 / term_unscale (matrix_terms.cu). */
    void *terms; /* [rows, n_terms * term_ld] */
    int n_terms, term_ld;
    float term_unscale; /* a power of two */
    float *unscale;     /* float32 products of precision high: two f16 terms of rows of their own scales (high.cuh); matrix_unscale_bytes */
    CUtensorMap box64, box48, box32, box24, box16, box8; /* level wgmma: boxes of 64 columns and so many rows */
};

enum matmul_end { END_ACT, END_F32, END_RESIDUAL, END_SWIGLU, END_BLEND };

/* Heads that are turned and stored as rope_store does it: h of q, which stay in y, hk of k and hk of v, whose places are slots of kv. */
struct rope_end {
    const float *cos, *sin; /* [max_pos, hd/2]; cos NULL: columns are no heads */
    const int *pos, *slot;  /* by row of the set, which has no list */
    void *kv;
    int h, hk;
};

/* Where the products of row m of the set go, column c < n. */
struct matmul_out {
    enum matmul_end end;
    void *y; /* ACT, SWIGLU: act; F32, RESIDUAL, BLEND: f32 */
    int ldy, n;
    bool wide;         /* rows of y (and of fan) start at multiples of 16 bytes */
    const float *bias; /* packed order, or NULL */
    const float *gate; /* RESIDUAL, BLEND: f32 [step rows], or NULL */
    struct rows rows;
    /* BLEND, on level wgmma alone: what the product is added to, rows packed, n apart */
    const float *packed;
    enum blend_mode mode;
    /* ACT, or NULL: head i of hd columns goes to heads i * fan_group .. i * fan_group + fan_group-1 of `fan` as well, [step rows, n * fan_group] */
    void *fan;
    int fan_group, hd;
    struct rope_end rope; /* ACT, on level wgmma alone, of more than FEW_ROWS_MAX rows and heads of hd columns, 64 or 128 */
};

struct matmul_in {
    const void *x; /* act; f32 for ACCURATE */
    int ldx;
};

/* Another product of the same rows, of a matrix of the same k, in the launch of the first. */
struct matmul_second {
    const struct kern_matrix *w;
    struct matmul_out out;
};

/* Rows that are normed on their way into a product: row i of its set is row idx[i] of x, or the set's own. */
struct matmul_norm {
    const float *x, *w; /* [.., k], [k] */
    const int *idx;     /* or NULL */
    float eps;
};

/* Row-major [rows, cols] of `type` as a tensor map with boxes of box_rows rows and 128 bytes, 128-byte swizzle; out of bounds reads as 0. */
int tensor_map(struct cuda_ctx *c, CUtensorMap *ret, enum dtype type, const void *p, int rows, int cols, size_t ld, int box_rows);
/* As that of [rows, heads, hd] with boxes of box_rows rows of box_heads heads. */
int tensor_map_heads(struct cuda_ctx *c, CUtensorMap *ret, enum dtype type, const void *p, int rows, int heads, int hd, int box_rows,
                     int box_heads);
/* The tensor maps of a matrix whose data and terms are there, where the device uses any. */
int matrix_map(struct cuda_ctx *c, struct kern_matrix *w);
bool tensor_map_fits(const void *p, size_t ld_bytes);

/* Fills w's terms from w->data. */
int matrix_terms_f16(struct cuda_ctx *c, struct kern_matrix *w);

static inline size_t matrix_terms_bytes(const struct kern_matrix *w, int n_terms, int term_ld)
{
    return (size_t)w->rows * n_terms * term_ld * 2;
}
/* A tile may read beyond the last row. */
static inline size_t matrix_unscale_bytes(const struct kern_matrix *w)
{
    return (size_t)(w->rows + 256) * sizeof(float);
}

/* Lays the set's rows side by side; their first k elements and what the last 16 bytes hold beyond them. */
int matmul_gather(struct cuda_ctx *c, struct matmul_in *in, int k, size_t size, struct rows n);

/* FEW_F32_ROWS rows at most, which start at multiples of 16 bytes. */
enum { FEW_F32_ROWS = 64 };
int matmul_few_f32(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
/* Any shape. */
int matmul_f32(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
/* Any shape, a matrix with terms of its own scales. */
int matmul_high_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
int matmul_high_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
/* Any shape, 16-bit: fused multiply-adds in f32. */
int matmul_simt(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
/* 16-bit, x as tensor_map_fits: level mma, and wgmma (where the rows must be the first of x). */
int matmul_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
int matmul_accurate_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
/* Of FEW_ROWS_MAX rows at most, with a second product (NULL: none) SECOND_ROWS_MAX; its cost is in rows of tiles that the busiest multiprocessor brings in. Two
 * products end as END_ACT. */
enum { FEW_ROWS_MAX = 512, SECOND_ROWS_MAX = 64 };
int matmul_few_cost(const struct cuda_ctx *c, const struct kern_matrix *w, const struct matmul_out *out);
int matmul_few_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                    const struct matmul_second *second);
/* NORMED_ROWS_MAX rows at most and k <= NORMED_K_MAX, a multiple of 8 (of others the op takes another kernel, which has other bits), 16-bit; rows of x start at
 * multiples of 16 bytes. second: as above. */
enum { NORMED_ROWS_MAX = 8, NORMED_K_MAX = 2048 };
int matmul_normed_sm90(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out,
                       const struct matmul_second *second);
/* The set's rows of x, OWN_ROWS_MAX at most, which start at multiples of 16 bytes, and OWN_ELEMENTS_MAX in all; not BLEND. More are faster by matmul_few_sm90. */
enum { OWN_ROWS_MAX = NORMED_ROWS_MAX, OWN_ELEMENTS_MAX = 1024 };
int matmul_own_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
int matmul_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
int matmul_accurate_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out);
