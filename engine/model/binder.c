/* A tensor is asked for by its row of the schema and given to the backend. */
#include "engine/model/binder.h"
#include "engine/checkpoint/tensor_match.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one tensor -------------------------------------------------------------------------------------------- */

/* NULL: this layer has none. */
static const struct tensor *take(struct binder *b, enum schema_row row, enum dtype *ret_type)
{
    struct tensor_spec spec;
    if (!schema_find(b->c, b->of, row, &spec))
        return NULL;
    const struct tensor *t = safetensors_find(b->s, spec.name);
    assert(t); /* tensor_match saw it */
    (void)tensor_match_dtype(t, ret_type, NULL);
    return t;
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

/* Converts a tensor to f32. */
static int read_f32(struct binder *b, const struct tensor *t, enum dtype type, float *dst)
{
    const void *data = NULL;
    size_t n = (size_t)tensor_elements(t);
    int r = aligned_data(b, t, type, &data);
    if (r < 0)
        return r;
    dtype_to_f32(dst, data, type, n);
    drop_copies(b);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(dst[i]))
            return err_set(b->err, ERR_CORRUPT, "tensor %s: value %zu is not finite", t->name, i);
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

int binder_vector(struct binder *b, const enum schema_row *rows, int n, struct dev_f32 **ret)
{
    const struct tensor *t[BINDER_MAX_PARTS];
    enum dtype type[BINDER_MAX_PARTS] = {0};
    size_t total = 0, at = 0;
    assert(n <= BINDER_MAX_PARTS);
    for (int i = 0; i < n; i++) {
        t[i] = take(b, rows[i], &type[i]);
        assert(t[i]);
        total += (size_t)tensor_elements(t[i]);
    }
    float *values = malloc(total * sizeof(*values));
    int r = values ? 0 : err_set(b->err, ERR_NOMEM, "no memory to read %zu weights", total);
    for (int i = 0; i < n && r >= 0; at += (size_t)tensor_elements(t[i++]))
        r = read_f32(b, t[i], type[i], values + at);
    if (r >= 0)
        r = upload(b, values, total, ret);
    free(values);
    return r;
}

/* ---- matrices ------------------------------------------------------------------------------------------------ */

/* A part and the tensors that it came from. */
struct source {
    const struct tensor *weight, *bias; /* bias: NULL if it has none */
};

static int fill_part(struct binder *b, enum schema_row row, struct source *from, struct matrix_part *ret)
{
    from->weight = take(b, row, &ret->type);
    from->bias = row + 1 < SCHEMA_ROWS && schema_is_bias(row + 1) ? take(b, row + 1, &ret->bias_type) : NULL;
    assert(from->weight);
    ret->n = (int)from->weight->shape[0];
    int r = aligned_data(b, from->weight, ret->type, &ret->data);
    return r >= 0 && from->bias ? aligned_data(b, from->bias, ret->bias_type, &ret->bias) : r;
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
static int blame(struct binder *b, int code, const struct source *from, const struct matrix_part *parts, int n, const struct err *cause)
{
    for (int i = 0; i < n && code == ERR_CORRUPT; i++) {
        if (!all_finite(parts[i].data, parts[i].type, (size_t)tensor_elements(from[i].weight)))
            return err_set(b->err, code, "tensor %s holds a value that is not finite", from[i].weight->name);
        if (parts[i].bias && !all_finite(parts[i].bias, parts[i].bias_type, (size_t)tensor_elements(from[i].bias)))
            return err_set(b->err, code, "tensor %s holds a value that is not finite", from[i].bias->name);
    }
    return err_set(b->err, code, "%s%s: %s", from[0].weight->name, n > 1 ? " and its neighbours" : "", cause->text);
}

int binder_matrix(struct binder *b, enum matrix_kind kind, const enum schema_row *rows, int n, struct kern_matrix **ret)
{
    struct matrix_part parts[BINDER_MAX_PARTS] = {0};
    struct source from[BINDER_MAX_PARTS];
    struct err cause = {0};
    int r = 0;
    assert(n <= BINDER_MAX_PARTS);
    for (int i = 0; i < n && r >= 0; i++)
        r = fill_part(b, rows[i], &from[i], &parts[i]);
    if (r >= 0) {
        r = b->k->ops->matrix_new(b->k, kind, parts, n, (int)from[0].weight->shape[1], ret, &cause);
        if (r >= 0)
            b->bytes += b->k->ops->matrix_bytes(*ret);
        else
            r = blame(b, r, from, parts, n, &cause);
    }
    drop_copies(b);
    return r;
}
