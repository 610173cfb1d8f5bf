/* How fast products of few rows read their weights, beside a loop that only reads as many bytes: bench_stream DTYPE THREADS [REPEATS] [ROWS ...].
 *
 * The four products of a layer of the 360M shape, in LAYERS layers in turn, so that no cache holds them; every sample is one layer's, a millisecond or
 * two, and a probe of the same bytes in huge pages comes between any two. LEVEL: the level of kernels. One thread is timed by its own processor time,
 * which leaves out what other programs take. Prints GB/s of weights, the best and the median of the samples, and both as parts of the probe's. */
#include "common/thread.h"
#include "kernels/backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { D = 960, F = 2560, QKV = 1600, LAYERS = 8, PRODUCTS = 4, MAX_ROWS = 64, MAX_REPEATS = 1000, HUGE_PAGE = 2 << 20 };

static const struct {
    enum matrix_kind kind;
    int n, k;
} shapes[PRODUCTS] = {{MATRIX_LINEAR, QKV, D}, {MATRIX_LINEAR, D, D}, {MATRIX_GATE_UP, 2 * F, D}, {MATRIX_LINEAR, D, F}};

struct bench {
    const struct backend *b;
    struct kern_ctx *k;
    struct kern_matrix *w[LAYERS][PRODUCTS];
    struct dev_act *x, *y;
    struct dev_f32 *sum;
    size_t layer_bytes;
    char *memory; /* [LAYERS][layer_bytes] for the probe */
    struct thread_pool *pool;
    int n_threads;
};

static void must(int code, const char *what)
{
    if (code >= 0)
        return;
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static double seconds(const struct bench *a)
{
    struct timespec t;
    clock_gettime(a->n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *room(const struct bench *a, size_t bytes)
{
    void *p = a->b->alloc(a->k, bytes), *zeros = calloc(1, bytes);
    must(p && zeros ? a->b->upload(a->k, p, zeros, bytes) : ERR_NOMEM, "out of memory");
    free(zeros);
    return p;
}

static void make_weights(struct bench *a)
{
    struct err e = {0};
    uint64_t stream = 0;
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < PRODUCTS; i++) {
            int parts = shapes[i].kind == MATRIX_GATE_UP ? 2 : 1;
            struct matrix_part part = {.type = DTYPE_BF16, .n = shapes[i].n / parts, .random = {.stream = ++stream, .std = 0.02}};
            const struct matrix_part both[2] = {part, part};
            must(a->k->ops->matrix_new(a->k, shapes[i].kind, both, parts, shapes[i].k, &a->w[l][i], &e), e.text);
            a->layer_bytes += l ? 0 : a->k->ops->matrix_bytes(a->w[l][i]);
        }
    a->layer_bytes = a->layer_bytes / 128 * 128;
    a->memory = aligned_alloc(HUGE_PAGE, (LAYERS * a->layer_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    must(a->memory ? 0 : ERR_NOMEM, "out of memory");
    madvise(a->memory, LAYERS * a->layer_bytes, MADV_HUGEPAGE);
    memset(a->memory, 1, LAYERS * a->layer_bytes);
}

static void run_layer(const struct bench *a, int layer, int n)
{
    const struct kern_ops *o = a->k->ops;
    struct kern_matrix *const *w = a->w[layer];
    struct rows rows = {.n_max = n};
    o->matmul(a->k, a->y, 0, QKV, a->x, D, w[0], rows);
    o->matmul_residual(a->k, a->sum, a->x, D, w[1], NULL, rows);
    o->matmul_swiglu(a->k, a->y, a->x, w[2], rows);
    o->matmul_residual(a->k, a->sum, a->x, F, w[3], NULL, rows);
}

struct reading {
    const struct bench *a;
    const uint64_t *from;
    uint64_t sum[64];
};

static void read_part(void *arg, int i, int thread)
{
    struct reading *r = arg;
    uint64_t s[16] = {0};
    size_t words = r->a->layer_bytes / sizeof(uint64_t) / 16, first = words * (size_t)i / (size_t)r->a->n_threads,
           end = words * (size_t)(i + 1) / (size_t)r->a->n_threads;
    for (const uint64_t *p = r->from + 16 * first; p < r->from + 16 * end; p += 16)
        for (int j = 0; j < 16; j++)
            s[j] += p[j];
    for (int j = 0; j < 16; j++)
        r->sum[i % 64] += s[j];
}

static uint64_t probe(const struct bench *a, int layer)
{
    struct reading r = {.a = a, .from = (const void *)(a->memory + (size_t)layer * a->layer_bytes)};
    parallel_for(a->pool, a->n_threads, read_part, &r);
    return r.sum[0];
}

static void measure(const struct bench *a, int rows, int repeats)
{
    static double ours[MAX_REPEATS], theirs[MAX_REPEATS];
    uint64_t sum = 0;
    for (int i = 0; i < repeats; i++) {
        double t0 = seconds(a);
        run_layer(a, i % LAYERS, rows);
        double t1 = seconds(a);
        sum += probe(a, (i + LAYERS / 2) % LAYERS);
        theirs[i] = seconds(a) - t1;
        ours[i] = t1 - t0;
    }
    qsort(ours, (size_t)repeats, sizeof(*ours), by_value);
    qsort(theirs, (size_t)repeats, sizeof(*theirs), by_value);
    double gb = 1e-9 * (double)a->layer_bytes, best = gb / ours[0], middle = gb / ours[repeats / 2];
    printf("%2d rows   best %6.2f GB/s  median %6.2f   probe %6.2f %6.2f   parts %.3f %.3f%s\n", rows, best, middle, gb / theirs[0],
           gb / theirs[repeats / 2], theirs[0] / ours[0], theirs[repeats / 2] / ours[repeats / 2], sum ? "" : "?");
}

static void close_bench(struct bench *a)
{
    for (int i = 0; i < LAYERS * PRODUCTS; i++)
        a->k->ops->matrix_free(a->k, a->w[i / PRODUCTS][i % PRODUCTS]);
    a->b->free(a->k, DEV_BYTES(a->x));
    a->b->free(a->k, DEV_BYTES(a->y));
    a->b->free(a->k, DEV_BYTES(a->sum));
    a->b->close(a->k);
    thread_pool_free(a->pool);
    free(a->memory);
}

int main(int argc, char **argv)
{
    struct err e = {0};
    bool bf16 = argc > 1 && !strcmp(argv[1], "bf16");
    int repeats = argc > 3 ? atoi(argv[3]) : 100;
    struct bench a = {.n_threads = argc > 2 ? atoi(argv[2]) : 1};
    struct backend_config c = {.dtype = bf16 ? DTYPE_BF16 : DTYPE_F32, .n_threads = a.n_threads, .cpu_level = getenv("LEVEL")};
    if (argc < 2 || a.n_threads < 1 || repeats < 1 || repeats > MAX_REPEATS)
        return fprintf(stderr, "bench_stream DTYPE THREADS [REPEATS] [ROWS ...]: see the head of the source\n"), 2;
    must(backend_find("cpu", &a.b, &e), e.text);
    must(a.b->open(&c, &a.k, &e), e.text);
    must(thread_pool_new(a.n_threads, NULL, &a.pool, &e), e.text);
    make_weights(&a);
    a.x = room(&a, sizeof(float) * MAX_ROWS * F);
    a.y = room(&a, sizeof(float) * MAX_ROWS * F);
    a.sum = room(&a, sizeof(float) * MAX_ROWS * D);
    printf("%s, %d threads, %.1f MB a layer\n", a.b->numerics_class(a.k), a.n_threads, 1e-6 * (double)a.layer_bytes);
    if (argc <= 4)
        measure(&a, 1, repeats);
    for (int i = 4; i < argc; i++)
        if (atoi(argv[i]) >= 1 && atoi(argv[i]) <= MAX_ROWS)
            measure(&a, atoi(argv[i]), repeats);
    close_bench(&a);
    return 0;
}
