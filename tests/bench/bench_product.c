/* y = x w^T of float32 matrices in files, computed as the engine does: for comparisons with other programs (eval/benchmarks/f32_error.py).
 *
 *   bench_product BACKEND PRECISION K X W Y
 *
 * PRECISION: highest or high. X [m, K], W [n, K] and Y [m, n] are files of float32 in the machine's order, row by row; Y is written. */
#include "kernels/backend.h"
#include "kernels/dev_ptr.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A negative code ends the program with what was tried, and on what. */
static void must(int code, const char *what, const char *on)
{
    if (code >= 0)
        return;
    fprintf(stderr, "%s %s\n", what, on);
    exit(1);
}

static float *read_file(const char *path, int k, int *ret_rows)
{
    FILE *f = fopen(path, "rb");
    long bytes = f && !fseek(f, 0, SEEK_END) ? ftell(f) : -1, row = (long)k * (long)sizeof(float);
    must(bytes > 0 && bytes % row == 0 && bytes / row < 1 << 20 ? 0 : ERR_INVALID, "up to 2^20 rows of K float32 are not in", path);
    float *values = malloc((size_t)bytes);
    rewind(f);
    must(values && fread(values, 1, (size_t)bytes, f) == (size_t)bytes ? 0 : ERR_IO, "cannot read", path);
    fclose(f);
    *ret_rows = (int)(bytes / row);
    return values;
}

static void write_file(const char *path, const float *values, size_t n)
{
    FILE *f = fopen(path, "wb");
    must(f && fwrite(values, sizeof(*values), n, f) == n && !fclose(f) ? 0 : ERR_IO, "cannot write", path);
}

/* y: [m, n] */
static void multiply(struct kern_ctx *k, const float *x, int m, const float *w, int n, int cols, float *y)
{
    const struct backend *b = k->backend;
    const struct matrix_part part = {w, DTYPE_F32, n, NULL, DTYPE_F32};
    size_t x_bytes = sizeof(float) * (size_t)m * (size_t)cols, y_bytes = sizeof(float) * (size_t)m * (size_t)n;
    struct dev_bytes *dx = b->alloc(k, x_bytes), *dy = b->alloc(k, y_bytes);
    struct kern_matrix *matrix = NULL;
    struct err err = {0};
    must(k->ops->matrix_new(k, MATRIX_LINEAR, &part, 1, cols, &matrix, &err), "weights:", err.text);
    must(dx && dy ? b->upload(k, dx, x, x_bytes) : ERR_NOMEM, "no memory on", b->name);
    must(k->ops->matmul_f32(k, dev_f32_in(dy, 0), dev_act_in(dx, 0), matrix, (struct rows){.n_max = m}), "matmul_f32 failed on", b->name);
    must(b->download(k, y, dy, y_bytes), "cannot read the product from", b->name);
    must(b->sync(k, &err), "the product:", err.text);
    k->ops->matrix_free(k, matrix);
    b->free(k, dx);
    b->free(k, dy);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    struct kern_ctx *k = NULL;
    const struct backend *b = NULL;
    int m, n, cols = argc == 7 ? atoi(argv[3]) : 0;
    if (cols < 1 || cols > 1 << 20) {
        fprintf(stderr, "bench_product BACKEND highest|high K X W Y\n");
        return 2;
    }
    struct backend_config c = {.dtype = DTYPE_F32, .precision = strcmp(argv[2], "high") ? MATMUL_HIGHEST : MATMUL_HIGH, .n_threads = 1};
    must(backend_find(argv[1], &b, &err), "device:", err.text);
    must(b->open(&c, &k, &err), "device:", err.text);
    float *x = read_file(argv[4], cols, &m), *w = read_file(argv[5], cols, &n), *y = malloc(sizeof(float) * (size_t)m * (size_t)n);
    must(y ? 0 : ERR_NOMEM, "no memory for", argv[6]);
    multiply(k, x, m, w, n, cols, y);
    write_file(argv[6], y, (size_t)m * (size_t)n);
    free(x);
    free(w);
    free(y);
    b->close(k);
    return 0;
}
