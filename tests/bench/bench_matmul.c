/* Our matmul against oneDNN's on the same shapes, interleaved, medians: bench_matmul THREADS M [REPEATS] [N,K ...].
 *
 * oneDNN gets what suits it best: its own choice of weight layout, the whole product in one primitive, its own threads. Ours is the op
 * as the engine calls it, packing of rows and the store to bf16 included. */
#include "kernels/backend.h"
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_REPEATS = 200 };

/* With one thread everything happens in the caller, and its processor time leaves out what other programs take. */
static clockid_t which_clock = CLOCK_MONOTONIC;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(which_clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static void fill(uint16_t *p, size_t n)
{
    uint32_t s = 12345;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        p[i] = f32_to_bf16((float)(s >> 8) * 0x1p-24f - 0.5f);
    }
}

struct onednn {
    dnnl_stream_t stream;
    dnnl_primitive_t matmul;
    dnnl_exec_arg_t args[3];
};

#define CHECK(call)                                        \
    do {                                                   \
        if ((call) != dnnl_success) {                      \
            fprintf(stderr, "oneDNN failed: %s\n", #call); \
            exit(1);                                       \
        }                                                  \
    } while (0)

static void onednn_new(struct onednn *o, dnnl_engine_t engine, uint16_t *x, uint16_t *w, uint16_t *y, int m, int n, int k)
{
    dnnl_dims_t xd = {m, k}, wd = {k, n}, yd = {m, n}, by_column = {1, k};
    dnnl_memory_desc_t xm, plain, packed, ym;
    dnnl_matmul_desc_t d;
    dnnl_primitive_desc_t pd, rd;
    dnnl_primitive_t reorder;
    dnnl_memory_t xmem, plain_mem, packed_mem, ymem;
    CHECK(dnnl_stream_create(&o->stream, engine, dnnl_stream_default_flags));
    CHECK(dnnl_memory_desc_init_by_tag(&xm, 2, xd, dnnl_bf16, dnnl_ab));
    CHECK(dnnl_memory_desc_init_by_strides(&plain, 2, wd, dnnl_bf16, by_column));
    CHECK(dnnl_memory_desc_init_by_tag(&packed, 2, wd, dnnl_bf16, dnnl_format_tag_any));
    CHECK(dnnl_memory_desc_init_by_tag(&ym, 2, yd, dnnl_bf16, dnnl_ab));
    CHECK(dnnl_matmul_desc_init(&d, &xm, &packed, NULL, &ym));
    CHECK(dnnl_primitive_desc_create(&pd, &d, NULL, engine, NULL));
    packed = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    CHECK(dnnl_primitive_create(&o->matmul, pd));
    CHECK(dnnl_memory_create(&xmem, &xm, engine, x));
    CHECK(dnnl_memory_create(&plain_mem, &plain, engine, w));
    CHECK(dnnl_memory_create(&packed_mem, &packed, engine, DNNL_MEMORY_ALLOCATE));
    CHECK(dnnl_memory_create(&ymem, &ym, engine, y));
    CHECK(dnnl_reorder_primitive_desc_create(&rd, &plain, engine, &packed, engine, NULL));
    CHECK(dnnl_primitive_create(&reorder, rd));
    dnnl_exec_arg_t ra[2] = {{DNNL_ARG_FROM, plain_mem}, {DNNL_ARG_TO, packed_mem}};
    CHECK(dnnl_primitive_execute(reorder, o->stream, 2, ra));
    CHECK(dnnl_stream_wait(o->stream));
    o->args[0] = (dnnl_exec_arg_t){DNNL_ARG_SRC, xmem};
    o->args[1] = (dnnl_exec_arg_t){DNNL_ARG_WEIGHTS, packed_mem};
    o->args[2] = (dnnl_exec_arg_t){DNNL_ARG_DST, ymem};
}

static void bench(struct kern_ctx *k, dnnl_engine_t engine, int m, int n, int d, int repeats)
{
    uint16_t *x = aligned_alloc(64, (size_t)m * d * 2), *w = aligned_alloc(64, (size_t)n * d * 2),
             *y = aligned_alloc(64, (size_t)m * n * 2 + 64);
    struct dev_bytes *our_x = k->backend->alloc(k, (size_t)m * d * 2), *our_y = k->backend->alloc(k, (size_t)m * n * 2);
    struct matrix_part part = {.data = w, .type = DTYPE_BF16, .n = n};
    struct kern_matrix *packed;
    struct onednn o;
    struct err e;
    double ours[MAX_REPEATS], theirs[MAX_REPEATS], flop = 2.0 * m * n * d;
    fill(x, (size_t)m * d);
    fill(w, (size_t)n * d);
    k->backend->upload(k, our_x, x, (size_t)m * d * 2);
    if (k->ops->matrix_new(k, MATRIX_LINEAR, &part, 1, d, &packed, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        exit(1);
    }
    onednn_new(&o, engine, x, w, y, m, n, d);
    for (int i = -1; i < repeats; i++) {
        double t0 = seconds();
        k->ops->matmul(k, dev_act_in(our_y, 0), 0, n, dev_act_in(our_x, 0), d, packed, (struct rows){.n_max = m});
        double t1 = seconds();
        CHECK(dnnl_primitive_execute(o.matmul, o.stream, 3, o.args));
        CHECK(dnnl_stream_wait(o.stream));
        double t2 = seconds();
        if (i >= 0) {
            ours[i] = t1 - t0;
            theirs[i] = t2 - t1;
        }
    }
    double a = median(ours, repeats), b = median(theirs, repeats);
    printf("m %5d n %5d k %5d   ours %6.3f ms %6.3f TFLOP/s %5.1f GB/s   onednn %6.3f ms %6.3f TFLOP/s   ratio %.2f\n", m, n, d, 1e3 * a,
           flop / a * 1e-12, 2e-9 * n * d / a, 1e3 * b, flop / b * 1e-12, b / a);
    k->ops->matrix_free(k, packed);
    k->backend->free(k, our_x);
    k->backend->free(k, our_y);
    free(x);
    free(w);
    free(y);
}

int main(int argc, char **argv)
{
    static const int shapes[][2] = {{1600, 960}, {960, 960}, {5120, 960}, {960, 2560}, {32000, 960}};
    int threads = argc > 1 ? atoi(argv[1]) : 1, m = argc > 2 ? atoi(argv[2]) : 512, repeats = argc > 3 ? atoi(argv[3]) : 30;
    const struct backend *b;
    struct kern_ctx *k;
    struct err e;
    if (repeats < 1 || repeats > MAX_REPEATS)
        repeats = MAX_REPEATS;
    omp_set_num_threads(threads);
    if (threads == 1)
        which_clock = CLOCK_THREAD_CPUTIME_ID;
    struct backend_config c = {.dtype = DTYPE_BF16, .n_threads = threads, .cpu_level = getenv("LEVEL")};
    if (backend_find("cpu", &b, &e) < 0 || b->open(&c, &k, &e) < 0) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    dnnl_engine_t engine;
    CHECK(dnnl_engine_create(&engine, dnnl_cpu, 0));
    printf("%s, %d threads\n", b->numerics_class(k), threads);
    for (size_t i = 0; argc <= 4 && i < sizeof(shapes) / sizeof(*shapes); i++)
        bench(k, engine, m, shapes[i][0], shapes[i][1], repeats);
    for (int i = 4; i < argc; i++) {
        int n, d;
        if (sscanf(argv[i], "%d,%d", &n, &d) != 2 || n < 1 || d < 1) {
            fprintf(stderr, "a shape is N,K, not %s\n", argv[i]);
            return 1;
        }
        bench(k, engine, m, n, d, repeats);
    }
    b->close(k);
    return 0;
}
