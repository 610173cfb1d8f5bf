/* Private to kernels/cpu: the backend's state, row sets, loops over rows, and element access by dtype.
 *
 * How an op is made: <op>.c holds its plain C form and fills its slots. Most of these files are compiled for several levels (ops.h), at
 * -O3 without contraction or fast-math, so loops are vectorised only where that keeps the order of every sum as written. A form that
 * must be written by hand for a level lives in <op>_<level>.c. For attention and the matmuls these files hold the inner loops, which
 * attention_blocked.c and matmul_panel.c choose by the level when a context is opened and when a matrix is made. */
#pragma once
#include "common/thread.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_level.h"
#include "kernels/dev_ptr.h"

enum { CPU_MAX_THREADS = 1024 };

struct cpu_matmul;     /* matrix.h */
struct cpu_matrix_ops; /* matrix.h */
struct cpu_attention;  /* attention_blocked.c */
struct cpu_group;      /* group.c */

/* out[rows, columns] = x[rows, k] b[k, columns]; at most 16 columns, of `type`. */
typedef void cpu_chain(const void *b, enum dtype type, int columns, const float *x, int k, int rows, float *out);

struct cpu {
    struct kern_ctx base; /* first: a kern_ctx of this backend is a struct cpu */
    struct kern_ops ops;  /* base.ops points here; levels override slots */
    enum cpu_level level;
    struct thread_pool *pool;
    int n_threads;
    bool split;                        /* products may be taken in terms of 16 bits, as AMX does */
    struct log *log;                   /* borrowed; may be NULL */
    const struct cpu_matrix_ops *only; /* who packs every matrix; NULL: the first that accepts it */
    cpu_chain *chain;                  /* the products of level scalar */
    struct cpu_matmul *matmul;         /* scratch of the matmuls */
    struct cpu_attention *attention;   /* work memory of its fast forms; NULL at level scalar */
    struct {
        float *memory;
        size_t floats;
    } mamba;                 /* scratch of route_mamba, grown when a router is made */
    struct cpu_group *group; /* NULL: it is no rank */
    int rank;
    double stamps[BACKEND_STAMPS];
    char numerics[128];
};

static inline struct cpu *cpu_of(struct kern_ctx *k)
{
    return k->impl;
}

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int rows_count(struct rows n)
{
    return n.n_dev ? *i32_of(n.n_dev) : n.n_max;
}
static inline int rows_at(const struct rows *n, int i)
{
    return n->idx ? i32_of(n->idx)[i] : i;
}

/* Element i of an array of type t (f32 or bf16). With t a constant, nothing is left of the branch. */
static inline float act_get(const void *p, enum dtype t, size_t i)
{
    return t == DTYPE_F32 ? ((const float *)p)[i] : bf16_to_f32(((const uint16_t *)p)[i]);
}

static inline void act_put(void *p, enum dtype t, size_t i, float v)
{
    if (t == DTYPE_F32)
        ((float *)p)[i] = v;
    else
        ((uint16_t *)p)[i] = f32_to_bf16(v);
}

static inline const void *act_at(const void *p, enum dtype t, size_t i)
{
    return (const char *)p + i * (t == DTYPE_F32 ? 4 : 2);
}
static inline void *act_at_mut(void *p, enum dtype t, size_t i)
{
    return (char *)p + i * (t == DTYPE_F32 ? 4 : 2);
}

/* Calls fn(arg, r) for every row r of the set, spread over the pool in groups of rows worth about `cost` element steps each. */
void cpu_for_rows(struct kern_ctx *k, struct rows n, int cost, void (*fn)(void *arg, int r), void *arg);
