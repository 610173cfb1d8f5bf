/* Weight matrices on the CPU: how they are cut, who packs them, and the driver that multiplies rows by them.
 *
 * A matrix [n,k] is cut along n into panels of `panel` packed columns (the last may be narrower); where the cuts lie follows from
 * (kind, n, k) alone. In a GATE_UP matrix a panel holds as many columns of gate as of up: first the gate columns, then the same columns
 * of up. Rows of x are gathered into tiles of `tile` rows, padded with zeros. One task multiplies some tiles by one panel, then
 * applies the epilogue (bias, gate, residual, swiglu) to the f32 result while it is in the cache. An element's sum depends on its own
 * row and panel only, because a `struct cpu_matrix_ops` must compute a tile row alike wherever it lies and whatever the others hold.
 *
 * A level adds a way to multiply by adding a `struct cpu_matrix_ops` to the list in matrix.c; the first that accepts a matrix packs it. */
#pragma once
#include "kernels/cpu/cpu.h"
#include <stdalign.h>
#include <stdatomic.h>

struct matmul_job;
struct weight_block; /* weight_memory.h */

struct cpu_matrix_ops {
    const char *name;
    /* Fills w's shape, x_type, tile, panel, packed_bytes, scratch sizes and private state, or returns ERR_UNSUPPORTED: the next in the list is
     * asked. kind, n, k, weight_type (what the values need: f32 or bf16) are set. Runs before any packing. */
    int (*plan)(struct cpu *c, struct kern_matrix *w);
    /* Packs inputs i .. i+n-1 of packed column c of panel p from src[n] of w->weight_type; i is a multiple of MATRIX_PACK_INPUTS, n that or what is left
     * of k. Each input of each column comes once, those of a panel from one thread, its first column's first inputs before all others. */
    void (*pack)(struct kern_matrix *w, int p, int c, int i, int n, const void *src);
    /* out[tile, columns of panel p] (f32) = x[tile,k] * panel p; only the first m rows are wanted. x is w->x_type. */
    void (*multiply)(struct cpu *c, const struct kern_matrix *w, int p, const void *x, int m, float *out, int thread);
    /* Instead of tiles and `multiply`: the whole product, epilogue included. NULL: the driver of matmul.c. */
    void (*run)(struct cpu *c, const struct matmul_job *job);
    /* dst[k] = packed column c of panel p, as it was packed. */
    void (*read_column)(const struct kern_matrix *w, int p, int c, float *dst);
};

struct kern_matrix {
    enum matrix_kind kind;
    int n, k;
    enum dtype weight_type; /* of the packed values' source: f32 or bf16 */
    enum dtype x_type;      /* of the gathered tiles */
    int tile, panel;        /* rows of a tile; packed columns of a panel (even for GATE_UP) */
    int n_panels;
    const struct cpu_matrix_ops *ops;
    void *packed;               /* 64-byte aligned, packed_bytes */
    struct weight_block *block; /* what holds it */
    size_t packed_bytes;
    size_t x_scratch;   /* bytes that `run` needs at cpu_matmul.x, and in cpu_matmul.out of each thread; */
    size_t out_scratch; /* 0: what the driver of matmul.c needs */
    float *bias;        /* [n] in packed column order, or NULL */
    void *state;        /* of ops */
};

enum matmul_epilogue { MATMUL_STORE, MATMUL_RESIDUAL, MATMUL_SWIGLU };

/* One product as kernels.h has it: x W^T for some step rows, and what becomes of it. */
struct matmul_job {
    const struct kern_matrix *w;
    const void *x;
    enum dtype x_type;
    int ldx;
    enum matmul_epilogue epilogue;
    void *y;
    enum dtype y_type;
    size_t ldy;
    const float *gate; /* RESIDUAL: by step row, or NULL */
    struct rows rows;
};

/* Packed columns of panel p, and the matrix row that packed column c of panel p holds. */
static inline int matrix_panel_columns(const struct kern_matrix *w, int p)
{
    return min_int(w->panel, w->n - p * w->panel);
}

static inline int matrix_source_row(const struct kern_matrix *w, int p, int c)
{
    int first = p * w->panel, half = matrix_panel_columns(w, p) / 2;
    if (w->kind != MATRIX_GATE_UP)
        return first + c;
    return c < half ? first / 2 + c : w->n / 2 + first / 2 + c - half;
}

struct matmul_share {
    alignas(64) atomic_uint_least64_t range;
};

/* Scratch that all matmuls of a context share: gathered rows and tile results, grown when a matrix is made. */
struct cpu_matmul {
    void *x; /* gathered rows of one block: [MATMUL_BLOCK_ROWS, k], or what `run` makes of them */
    size_t x_bytes;
    float *out[CPU_MAX_THREADS]; /* [tile, panel] a thread, or what `run` needs */
    size_t out_bytes[CPU_MAX_THREADS];
    struct matmul_share *shares;  /* [threads]: panels that matmul_stream.c still has to multiply */
    struct weight_block *weights; /* where the next matrix goes */
};

enum { MATMUL_BLOCK_ROWS = 512 };
enum { MATRIX_PACK_INPUTS = 512 }; /* so many of each of a panel's columns are in the first cache while they are packed */

/* Makes room for one more matrix. */
int cpu_matmul_reserve(struct cpu *c, const struct kern_matrix *w);
/* Makes as much room as another context has. */
int cpu_matmul_reserve_as(struct cpu *c, const struct cpu_matmul *other);
int cpu_matmul_new(struct cpu *c);
void cpu_matmul_free(struct cpu *c); /* copes with half-built */

/* NULL gives NULL; ERR_INVALID for an unknown name. */
int matrix_ops_find(const char *name, const struct cpu_matrix_ops **ret, struct err *err);
extern const struct cpu_matrix_ops matrix_ops_scalar;
extern const struct cpu_matrix_ops matrix_ops_panel; /* x86-64 only; declines below AVX2, and takes everything else */
