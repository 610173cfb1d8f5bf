/* Checks ops of kernels.h against references written in double, on any backend, level and dtype.
 *
 * check_rows takes an op that works row by row and sees that
 *   - every wanted element is within abs + rel * |reference| (and half a unit of its own dtype),
 *   - a row has the same bits in the whole set, in random subsets (idx and n_dev), alone, and in other batches in other order,
 *   - rows outside the set, inputs, and guard bytes around every array keep their bits; an empty set changes nothing.
 * main.c runs every check with several threads and with one, and every op in float32, the plain C ones in every dtype, by the CPU at level scalar
 * too: outputs must have the same bits (check_digest). */
#pragma once
#include "kernels/backend.h"
#include <stdio.h>
#include <stdlib.h>

struct check {
    struct kern_ctx *k;
    const struct backend *backend;
    enum dtype act;
    const char *op; /* under test, for messages */
    uint64_t rng, digest;
    int failures, cases;
    bool many_tiles; /* also shapes of several tiles of a GPU's kernels: of CUDA, and of what it is compared with */
    bool bench;      /* time it instead; ops then choose the shapes of real models */
};

enum check_type { CHECK_F32, CHECK_ACT, CHECK_I32, CHECK_U8 };
enum check_use { CHECK_IN, CHECK_OUT, CHECK_INOUT };

struct check_array {
    const char *name;
    enum check_use use;
    enum check_type type;
    int cols;
    double abs, rel; /* of outputs */
    void *host;      /* [n,cols]; filled by check_fill or by the op's test; freed by check_arrays_done */
};

struct check_op {
    const char *what; /* the shape, for messages */
    struct check_array *arrays;
    int n_arrays, n;
    /* The op on device arrays. */
    int (*run)(const struct check *c, const void *arg, void *const *dev, struct rows rows);
    /* Reference of one row: in[i] is row r of array i as it was before, out[i] takes array i's values (NULL for inputs).
     * NAN means: any value will do (a decision within its margin). */
    void (*want)(const struct check *c, const void *arg, int r, const void *const *in, double *const *out);
    const void *arg;
    bool no_subsets;      /* the op takes no row set: n alone counts */
    bool all_rows;        /* run() takes rows.n_max for the number of rows in the arrays */
    const int *batches;   /* batches of so many rows are compared as well, up to a 0; NULL: none */
    double flops_per_row; /* for --bench; 0: not told */
};

void check_rows(struct check *c, const struct check_op *op);
void check_arrays_done(struct check_array *arrays, int n_arrays);

void check_fail(struct check *c, const char *what, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void check_digest(struct check *c, const void *bytes, size_t n);
void check_code(struct check *c, const char *what, int code); /* 0 is expected */

/* Element i of an array as double, and its store with rounding. */
double check_get(const struct check *c, enum check_type t, const void *p, size_t i);
void check_put(const struct check *c, enum check_type t, void *p, size_t i, double v);
size_t check_size(const struct check *c, enum check_type t);

/* Random numbers: a whole one in [lo, hi], and an even one in [lo, hi). */
int check_int(struct check *c, int lo, int hi);
double check_real(struct check *c, double lo, double hi);
/* A host array of n elements, even in [lo, hi) for floats, whole in [lo, hi] for the others. The caller frees. */
void *check_fill(struct check *c, enum check_type t, size_t n, double lo, double hi);
float *check_floats(struct check *c, size_t n, double lo, double hi);

/* Backend memory with guard bytes on both sides. down copies back and complains of broken guards; put frees. */
void *check_up(struct check *c, const void *host, size_t bytes);
void check_down(struct check *c, const char *what, void *host, const void *dev, size_t bytes);
void check_drop(struct check *c, void *dev);

/* Seconds of one call of fn(arg), the best of several. */
double check_seconds(struct check *c, void (*fn)(void *arg), void *arg);

/* Every op has its check in tests/kernels. */
#define OP(name, kind, bits, args, ...) void check_##name(struct check *c);
#include "kernels/op_list.h"
/* Of the optional ops those that no other check sees to. */
void check_route_mlp_place(struct check *c);
void check_rope_attention(struct check *c);
void check_matmul_rope_store(struct check *c);
void check_matmul_with_bypass(struct check *c);
