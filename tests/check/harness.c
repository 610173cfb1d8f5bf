#include "tests/check/harness.h"
#include <math.h>
#include <stdarg.h>
#include <time.h>

enum { GUARD = 192, GUARD_BYTE = 0xA5, MAX_ARRAYS = 12, MAX_PRINTED = 20 };

void check_fail(struct check *c, const char *what, const char *fmt, ...)
{
    va_list ap;
    if (++c->failures > MAX_PRINTED)
        return;
    fprintf(stderr, "%s %s: ", c->op, what);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void check_digest(struct check *c, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        c->digest = (c->digest ^ p[i]) * 0x100000001b3u;
}

void check_code(struct check *c, const char *what, int code)
{
    if (code)
        check_fail(c, what, "returned %s", err_name(code));
}

/* ---- elements and random numbers -------------------------------------------------------------------------------- */

static enum dtype dtype_of(const struct check *c, enum check_type t)
{
    return t == CHECK_ACT ? c->act : DTYPE_F32;
}

size_t check_size(const struct check *c, enum check_type t)
{
    return t == CHECK_I32 ? 4 : t == CHECK_U8 ? 1 : dtype_size(dtype_of(c, t));
}

double check_get(const struct check *c, enum check_type t, const void *p, size_t i)
{
    float v;
    if (t == CHECK_I32)
        return ((const int *)p)[i];
    if (t == CHECK_U8)
        return ((const unsigned char *)p)[i];
    dtype_to_f32(&v, (const char *)p + i * check_size(c, t), dtype_of(c, t), 1);
    return v;
}

void check_put(const struct check *c, enum check_type t, void *p, size_t i, double v)
{
    float f = (float)v;
    if (t == CHECK_I32)
        ((int *)p)[i] = (int)v;
    else if (t == CHECK_U8)
        ((unsigned char *)p)[i] = (unsigned char)v;
    else
        dtype_from_f32((char *)p + i * check_size(c, t), dtype_of(c, t), &f, 1);
}

static uint64_t next(struct check *c) /* SplitMix64 */
{
    uint64_t z = c->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int check_int(struct check *c, int lo, int hi)
{
    return lo + (int)(next(c) % (uint64_t)(hi - lo + 1));
}
double check_real(struct check *c, double lo, double hi)
{
    return lo + (hi - lo) * (double)(next(c) >> 11) * 0x1p-53;
}

void *check_fill(struct check *c, enum check_type t, size_t n, double lo, double hi)
{
    void *p = malloc(n * check_size(c, t) + 1);
    for (size_t i = 0; i < n; i++)
        check_put(c, t, p, i, t == CHECK_I32 || t == CHECK_U8 ? check_int(c, (int)lo, (int)hi) : check_real(c, lo, hi));
    return p;
}

float *check_floats(struct check *c, size_t n, double lo, double hi)
{
    return check_fill(c, CHECK_F32, n, lo, hi);
}

/* ---- guarded memory --------------------------------------------------------------------------------------------- */

/* What check_up allocated for an array. */
static struct dev_bytes *before_guard(const void *dev)
{
    return (struct dev_bytes *)((char *)dev - GUARD);
}

void *check_up(struct check *c, const void *host, size_t bytes)
{
    char *image = malloc(bytes + 2 * GUARD);
    struct dev_bytes *dev = c->backend->alloc(c->k, bytes + 2 * GUARD);
    if (!image || !dev) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    memset(image, GUARD_BYTE, bytes + 2 * GUARD);
    if (bytes)
        memcpy(image + GUARD, host, bytes);
    check_code(c, "upload", c->backend->upload(c->k, dev, image, bytes + 2 * GUARD));
    free(image);
    return dev_bytes_in(dev, GUARD);
}

void check_down(struct check *c, const char *what, void *host, const void *dev, size_t bytes)
{
    char *image = malloc(bytes + 2 * GUARD);
    struct err err;
    check_code(c, what, c->backend->download(c->k, image, before_guard(dev), bytes + 2 * GUARD));
    check_code(c, what, c->backend->sync(c->k, &err));
    for (int i = 0; i < GUARD; i++)
        if ((unsigned char)image[i] != GUARD_BYTE || (unsigned char)image[GUARD + bytes + i] != GUARD_BYTE) {
            check_fail(c, what, "wrote outside its array");
            break;
        }
    if (bytes)
        memcpy(host, image + GUARD, bytes);
    free(image);
}

void check_drop(struct check *c, void *dev)
{
    if (dev)
        c->backend->free(c->k, before_guard(dev));
}

/* ---- row ops ---------------------------------------------------------------------------------------------------- */

struct bench {
    struct check *c;
    const struct check_op *op;
    void *const *dev;
};

static size_t row_bytes(const struct check *c, const struct check_array *a)
{
    return a->cols * check_size(c, a->type);
}

/* How a row set is told: every row, by a list and a count on the device, by a list alone, by a count alone (the first rows). */
enum set_form { SET_ALL, SET_LIST_AND_COUNT, SET_LIST, SET_COUNT };

/* Runs the op on m rows, row i being row from[i] of the test's arrays, with the row set `idx` of `n_idx` rows.
 * ret[i]: array i after the run, [m,cols]. */
static void run_on(struct check *c, const struct check_op *op, const int *from, int m, enum set_form form, const int *idx, int n_idx,
                   void **ret)
{
    void *dev[MAX_ARRAYS], *dev_idx = NULL, *dev_n = NULL;
    for (int i = 0; i < op->n_arrays; i++) {
        size_t bytes = row_bytes(c, &op->arrays[i]);
        ret[i] = malloc(m * bytes + 1);
        for (int r = 0; r < m; r++)
            memcpy((char *)ret[i] + r * bytes, (const char *)op->arrays[i].host + from[r] * bytes, bytes);
        dev[i] = check_up(c, ret[i], m * bytes);
    }
    struct rows rows = {NULL, NULL, m};
    if (form == SET_LIST || form == SET_LIST_AND_COUNT)
        rows.idx = dev_idx = check_up(c, idx, sizeof(int) * n_idx);
    if (form == SET_COUNT || form == SET_LIST_AND_COUNT)
        rows.n_dev = dev_n = check_up(c, &n_idx, sizeof(int));
    if (form == SET_LIST)
        rows.n_max = n_idx;
    check_code(c, op->what, op->run(c, op->arg, dev, rows));
    for (int i = 0; i < op->n_arrays; i++) {
        check_down(c, op->arrays[i].name, ret[i], dev[i], m * row_bytes(c, &op->arrays[i]));
        check_drop(c, dev[i]);
    }
    check_drop(c, dev_idx);
    check_drop(c, dev_n);
}

static void free_all(void **p, int n)
{
    for (int i = 0; i < n; i++)
        free(p[i]);
}

/* Rows 0..m-1 of `got`, being rows from[] of the test, against `all` where touched (all arrays) and against the input elsewhere. */
static void same_bits(struct check *c, const struct check_op *op, const char *how, void **got, const int *from, int m,
                      const unsigned char *touched, void **all)
{
    for (int i = 0; i < op->n_arrays; i++) {
        const struct check_array *a = &op->arrays[i];
        size_t bytes = row_bytes(c, a);
        for (int r = 0; r < m; r++) {
            bool output = a->use != CHECK_IN && (!touched || touched[r]);
            const char *want = (const char *)(output ? all[i] : a->host) + from[r] * bytes;
            if (memcmp(want, (char *)got[i] + r * bytes, bytes)) {
                check_fail(c, op->what, "%s: row %d of %s %s (n %d)", how, from[r], a->name,
                           output ? "has other bits than in the whole set" : "was changed", op->n);
                return;
            }
        }
    }
}

static void compare(struct check *c, const struct check_op *op, void **got)
{
    for (int r = 0; r < op->n; r++) {
        const void *in[MAX_ARRAYS];
        double *out[MAX_ARRAYS] = {0};
        for (int i = 0; i < op->n_arrays; i++) {
            in[i] = (const char *)op->arrays[i].host + r * row_bytes(c, &op->arrays[i]);
            if (op->arrays[i].use != CHECK_IN)
                out[i] = calloc(op->arrays[i].cols + 1, sizeof(double));
        }
        op->want(c, op->arg, r, in, out);
        for (int i = 0; i < op->n_arrays; i++) {
            const struct check_array *a = &op->arrays[i];
            double ulp = a->type == CHECK_ACT ? c->act == DTYPE_BF16 ? 0x1p-8 : c->act == DTYPE_F16 ? 0x1p-11 : 0 : 0;
            double least = ulp == 0x1p-11 ? 0x1p-25 : 0; /* below f16's normal numbers half a unit is this */
            for (int j = 0; out[i] && j < a->cols; j++) {
                double v = check_get(c, a->type, got[i], (size_t)r * a->cols + j), w = out[i][j];
                if (!isnan(w) && !(v == w) && !(fabs(v - w) <= a->abs + least + (a->rel + ulp) * fabs(w)))
                    check_fail(c, op->what, "row %d of %d, %s[%d] is %.9g, not %.9g (off by %.3g)", r, op->n, a->name, j, v, w, v - w);
            }
            free(out[i]);
        }
    }
}

/* About `percent` of the rows; by count alone they are the first ones. */
static void check_subset(struct check *c, const struct check_op *op, void **all, enum set_form form, int percent)
{
    int *from = calloc(op->n + 1, sizeof(int)), *idx = calloc(op->n + 1, sizeof(int)), n = 0;
    unsigned char *touched = calloc(op->n + 1, 1);
    void *got[MAX_ARRAYS];
    for (int r = 0; r < op->n; r++) {
        from[r] = r;
        touched[r] = form == SET_COUNT ? r * 100 < percent * op->n : check_int(c, 0, 99) < percent;
        if (touched[r])
            idx[n++] = r;
    }
    run_on(c, op, from, op->n, form, idx, n, got);
    same_bits(c, op, n ? "subset" : "empty set", got, from, op->n, touched, all);
    free_all(got, op->n_arrays);
    free(from);
    free(idx);
    free(touched);
}

/* m rows drawn at random, with repetition and in any order. */
static void check_batch(struct check *c, const struct check_op *op, void **all, int m)
{
    int *from = malloc(sizeof(int) * (m + 1));
    void *got[MAX_ARRAYS];
    for (int i = 0; i < m; i++)
        from[i] = check_int(c, 0, op->n - 1);
    run_on(c, op, from, m, SET_ALL, NULL, 0, got);
    same_bits(c, op, m == 1 ? "alone" : "other batch", got, from, m, NULL, all);
    free_all(got, op->n_arrays);
    free(from);
}

static void bench_once(void *arg)
{
    const struct bench *b = arg;
    struct err err;
    b->op->run(b->c, b->op->arg, b->dev, (struct rows){NULL, NULL, b->op->n});
    b->c->backend->sync(b->c->k, &err);
}

static void bench_rows(struct check *c, const struct check_op *op)
{
    void *dev[MAX_ARRAYS];
    double bytes = 0;
    for (int i = 0; i < op->n_arrays; i++) {
        size_t n = op->n * row_bytes(c, &op->arrays[i]);
        dev[i] = check_up(c, op->arrays[i].host, n);
        bytes += op->arrays[i].use == CHECK_INOUT ? 2 * n : n;
    }
    struct bench b = {c, op, dev};
    double s = check_seconds(c, bench_once, &b);
    printf("%-15s %-34s %5d rows %10.2f us %8.2f GB/s", c->op, op->what, op->n, s * 1e6, bytes / s * 1e-9);
    if (op->flops_per_row)
        printf(" %8.1f GFLOP/s", op->flops_per_row * op->n / s * 1e-9);
    putchar('\n');
    for (int i = 0; i < op->n_arrays; i++)
        check_drop(c, dev[i]);
}

void check_rows(struct check *c, const struct check_op *op)
{
    void *all[MAX_ARRAYS];
    int *from = malloc(sizeof(int) * (op->n + 1));
    c->cases++;
    if (c->bench) {
        free(from);
        bench_rows(c, op);
        return;
    }
    for (int r = 0; r < op->n; r++)
        from[r] = r;
    run_on(c, op, from, op->n, SET_ALL, NULL, 0, all);
    compare(c, op, all);
    for (int i = 0; i < op->n_arrays; i++)
        check_digest(c, all[i], op->n * row_bytes(c, &op->arrays[i]));
    same_bits(c, op, "whole set", all, from, op->n, NULL, all);
    for (int percent = 0; percent <= 100 && !op->no_subsets; percent += 50)
        check_subset(c, op, all, SET_LIST_AND_COUNT, percent);
    if (!op->no_subsets)
        check_subset(c, op, all, SET_COUNT, 70);
    if (!op->no_subsets && !op->all_rows)
        check_subset(c, op, all, SET_LIST, 70);
    for (int i = 0; i < 3 && op->n; i++)
        check_batch(c, op, all, i < 2 ? 1 : check_int(c, 2, 2 * op->n + 1));
    for (const int *m = op->batches; m && *m; m++)
        check_batch(c, op, all, *m);
    free_all(all, op->n_arrays);
    free(from);
}

void check_arrays_done(struct check_array *arrays, int n_arrays)
{
    for (int i = 0; i < n_arrays; i++)
        free(arrays[i].host);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double check_seconds(struct check *c, void (*fn)(void *arg), void *arg)
{
    double best = 1e9, begin = now();
    for (int i = 0; i < 3 || (i < 200 && now() - begin < 0.1); i++) {
        double t = now();
        fn(arg);
        t = now() - t;
        best = t < best ? t : best;
    }
    return best;
}
