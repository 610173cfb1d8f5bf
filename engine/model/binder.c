/* A tensor is asked for by name, checked, marked as used, and given to the backend. */
#include "engine/model/binder.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one tensor -------------------------------------------------------------------------------------------- */

int binder_dtype(const struct tensor *t, enum dtype *ret, struct err *err)
{
    switch (t->type) {
    case TENSOR_F32: *ret = DTYPE_F32; return 0;
    case TENSOR_BF16: *ret = DTYPE_BF16; return 0;
    case TENSOR_F16: *ret = DTYPE_F16; return 0;
    default: return err_set(err, ERR_UNSUPPORTED, "tensor %s has dtype %s; F32, BF16 and F16 are implemented", t->name, t->dtype);
    }
}

static void shape_text(char *out, size_t size, const int64_t *shape, int n)
{
    size_t at = (size_t)snprintf(out, size, "[");
    for (int i = 0; i < n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%lld", i ? "," : "", (long long)shape[i]);
    if (at < size)
        snprintf(out + at, size - at, "]");
}

static int check_shape(const struct tensor *t, const int64_t *want, int n, struct err *err)
{
    if (t->n_dims == n && !memcmp(t->shape, want, (size_t)n * sizeof(*want)))
        return 0;
    char is[192], expected[64];
    shape_text(is, sizeof(is), t->shape, t->n_dims);
    shape_text(expected, sizeof(expected), want, n);
    return err_set(err, ERR_CORRUPT, "tensor %s has shape %s; the config asks for %s", t->name, is, expected);
}

/* Finds, checks and marks `name` of shape [rows, cols], or [rows] if cols is 0. */
static int take(struct binder *b, const char *name, int64_t rows, int64_t cols, const struct tensor **ret, enum dtype *ret_type)
{
    const struct tensor *t = safetensors_find(b->s, name);
    if (!t)
        return err_set(b->err, ERR_CORRUPT, "tensor %s is missing", name);
    int64_t want[2] = {rows, cols};
    int r = check_shape(t, want, cols ? 2 : 1, b->err);
    if (r >= 0)
        r = binder_dtype(t, ret_type, b->err);
    if (r < 0)
        return r;
    b->used[t - safetensors_at(b->s, 0)] = true;
    *ret = t;
    return 0;
}

/* The tensor's values where the compiler may assume aligned loads. */
static int aligned_data(struct binder *b, const struct tensor *t, enum dtype type, const void **ret)
{
    *ret = t->data;
    if ((uintptr_t)t->data % dtype_size(type) == 0)
        return 0;
    void *copy = malloc(t->n_bytes);
    if (!copy)
        return err_set(b->err, ERR_NOMEM, "tensor %s: no memory for an aligned copy", t->name);
    memcpy(copy, t->data, t->n_bytes);
    b->copies[b->n_copies++] = copy;
    *ret = copy;
    return 0;
}

static void drop_copies(struct binder *b)
{
    while (b->n_copies)
        free(b->copies[--b->n_copies]);
}

/* ---- vectors ----------------------------------------------------------------------------------------------- */

/* Converts tensor `name` of n values to f32. */
static int read_f32(struct binder *b, const char *name, int64_t rows, int64_t cols, float *dst)
{
    const struct tensor *t = NULL;
    enum dtype type = DTYPE_F32;
    const void *data = NULL;
    int r = take(b, name, rows, cols, &t, &type);
    if (r >= 0)
        r = aligned_data(b, t, type, &data);
    if (r < 0)
        return r;
    size_t n = (size_t)(rows * (cols ? cols : 1));
    dtype_to_f32(dst, data, type, n);
    drop_copies(b);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(dst[i]))
            return err_set(b->err, ERR_CORRUPT, "tensor %s: value %zu is not finite", name, i);
    return 0;
}

static int upload(struct binder *b, const float *values, size_t n, struct dev_f32 **ret)
{
    const struct backend *be = b->k->backend;
    size_t bytes = n * sizeof(*values);
    struct dev_bytes *p = be->alloc(b->k, bytes);
    if (!p)
        return err_set(b->err, ERR_NOMEM, "no %s memory for weights", be->name);
    *ret = dev_f32_in(p, 0); /* owned by the weights from here on, also when the upload fails */
    b->bytes += bytes;
    int r = be->upload(b->k, p, values, bytes);
    return r < 0 ? err_set(b->err, r, "upload of weights to %s failed", be->name) : 0;
}

int binder_stacked(struct binder *b, const char *const *names, int n_names, int64_t rows, int64_t cols, struct dev_f32 **ret)
{
    size_t each = (size_t)(rows * (cols ? cols : 1));
    float *values = malloc(each * (size_t)n_names * sizeof(*values));
    int r = values ? 0 : err_set(b->err, ERR_NOMEM, "tensor %s: no memory", names[0]);
    for (int i = 0; i < n_names && r >= 0; i++)
        r = read_f32(b, names[i], rows, cols, values + (size_t)i * each);
    if (r >= 0)
        r = upload(b, values, each * (size_t)n_names, ret);
    free(values);
    return r;
}

int binder_vector(struct binder *b, const char *name, int64_t n, struct dev_f32 **ret)
{
    return binder_stacked(b, &name, 1, n, 0, ret);
}

/* ---- matrices ------------------------------------------------------------------------------------------------ */

static int fill_part(struct binder *b, const struct part_spec *p, int64_t cols, struct matrix_part *ret)
{
    char name[192];
    const struct tensor *t = NULL;
    ret->n = (int)p->n;
    snprintf(name, sizeof(name), "%s%s.weight", b->prefix, p->name);
    int r = take(b, name, p->n, cols, &t, &ret->type);
    if (r >= 0)
        r = aligned_data(b, t, ret->type, &ret->data);
    if (r < 0 || !p->bias)
        return r;
    snprintf(name, sizeof(name), "%s%s.bias", b->prefix, p->name);
    r = take(b, name, p->n, 0, &t, &ret->bias_type);
    return r >= 0 ? aligned_data(b, t, ret->bias_type, &ret->bias) : r;
}

static bool all_finite(const void *data, enum dtype type, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v;
        dtype_to_f32(&v, (const char *)data + i * dtype_size(type), type, 1);
        if (!isfinite(v))
            return false;
    }
    return true;
}

/* The backend refused a matrix: says which tensor it was, where one of several holds a value that is not finite. */
static int blame(struct binder *b, int code, const struct part_spec *specs, const struct matrix_part *parts, int n_parts, int64_t cols,
                 const struct err *cause)
{
    for (int i = 0; i < n_parts && code == ERR_CORRUPT; i++) {
        if (!all_finite(parts[i].data, parts[i].type, (size_t)(specs[i].n * cols)))
            return err_set(b->err, code, "tensor %s%s.weight holds a value that is not finite", b->prefix, specs[i].name);
        if (parts[i].bias && !all_finite(parts[i].bias, parts[i].bias_type, (size_t)specs[i].n))
            return err_set(b->err, code, "tensor %s%s.bias holds a value that is not finite", b->prefix, specs[i].name);
    }
    return err_set(b->err, code, "%s%s.weight%s: %s", b->prefix, specs[0].name, n_parts > 1 ? " and its neighbours" : "", cause->text);
}

int binder_matrix(struct binder *b, enum matrix_kind kind, const struct part_spec *specs, int n_parts, int64_t cols,
                  struct kern_matrix **ret)
{
    struct matrix_part parts[BINDER_MAX_PARTS] = {0};
    struct err cause = {0};
    int r = 0;
    for (int i = 0; i < n_parts && r >= 0; i++)
        r = fill_part(b, &specs[i], cols, &parts[i]);
    if (r >= 0) {
        r = b->k->ops->matrix_new(b->k, kind, parts, n_parts, (int)cols, ret, &cause);
        if (r >= 0)
            b->bytes += b->k->ops->matrix_bytes(*ret);
        else
            r = blame(b, r, specs, parts, n_parts, cols, &cause);
    }
    drop_copies(b);
    return r;
}
