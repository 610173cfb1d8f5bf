/* A tensor is asked for by its row of the schema, laid out as kernels want it, and given to the backend. */
#include "engine/model/binder.h"
#include "engine/checkpoint/tensor_match.h"
#include "engine/model/head_pad.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- one tensor -------------------------------------------------------------------------------------------- */

struct source {
    const struct tensor *t; /* NULL: this layer has none */
    struct tensor_spec spec;
    enum dtype type;
    struct head_pad pad; /* of its heads; hp = hd: nothing to do */
    const void *data;    /* the tensor's bytes from its first row on, or those of a copy: aligned, heads padded. NULL: random values */
    struct random_values random; /* where data is NULL */
    size_t rows, cols;           /* of data; a vector has one column */
};

/* Leaves the rows that are the rank's. */
static void cut(struct source *s, const struct binder *b)
{
    struct share_rows of = share_rows(&b->share, b->c, s->spec.slice, s->rows);
    s->data = s->t->data ? (const char *)s->t->data + of.first * s->cols * dtype_size(s->type) : NULL;
    s->random = s->t->random;
    s->random.first += of.first * s->cols;
    s->rows = of.n;
}

static struct source take(struct binder *b, enum schema_row row)
{
    struct source s = {0};
    if (!schema_find(b->c, b->of, row, &s.spec))
        return s;
    s.t = safetensors_find(b->s, s.spec.name);
    assert(s.t); /* tensor_match saw it */
    (void)tensor_match_dtype(s.t, &s.type, NULL);
    s.rows = (size_t)s.t->shape[0];
    s.cols = (size_t)tensor_elements(s.t) / s.rows;
    int hd = b->c->head_dim;
    cut(&s, b);
    s.pad = (struct head_pad){hd, s.spec.heads == HEADS_NONE ? hd : model_config_padded_head_dim(b->c), s.spec.heads == HEADS_HALVES};
    return s;
}

/* Random values, as the tensor would be stored. */
static void *make_values(const struct source *s)
{
    float chunk[1024];
    size_t n = s->rows * s->cols, size = dtype_size(s->type);
    char *values = malloc(n * size);
    for (size_t at = 0, some; values && at < n; at += some) {
        some = n - at < 1024 ? n - at : 1024;
        random_fill(&s->random, at, chunk, some);
        dtype_from_f32(values + at * size, s->type, chunk, some);
    }
    return values;
}

static void *padded(struct source *s)
{
    size_t hd = (size_t)s->pad.hd, hp = (size_t)s->pad.hp, size = dtype_size(s->type);
    void *copy;
    if (s->spec.heads == HEADS_IN) {
        copy = head_pad_columns(&s->pad, s->data, s->rows, s->cols / hd, size);
        s->cols = s->cols / hd * hp;
    } else {
        copy = head_pad_rows(&s->pad, s->data, s->rows / hd, s->cols, size);
        s->rows = s->rows / hd * hp;
    }
    return copy;
}

static void *aligned(const struct source *s)
{
    size_t bytes = s->rows * s->cols * dtype_size(s->type);
    void *copy = malloc(bytes);
    if (copy)
        memcpy(copy, s->data, bytes);
    return copy;
}

static int take_copy(struct binder *b, struct source *s, void *copy)
{
    if (!copy)
        return err_set(b->err, ERR_NOMEM, "tensor %s: no memory for a copy", s->t->name);
    b->copies[b->n_copies++] = copy;
    s->data = copy;
    return 0;
}

/* Fills s->data: the values where the compiler may assume aligned loads, heads padded. */
static int lay_out(struct binder *b, struct source *s)
{
    int r = s->data ? 0 : take_copy(b, s, make_values(s));
    if (r >= 0 && s->pad.hp != s->pad.hd)
        r = take_copy(b, s, padded(s));
    else if (r >= 0 && (uintptr_t)s->data % dtype_size(s->type))
        r = take_copy(b, s, aligned(s));
    return r;
}

/* The same of a matrix, whose random values the backend makes itself where no head is padded. */
static int lay_out_matrix(struct binder *b, struct source *s)
{
    return s->data || s->pad.hp != s->pad.hd ? lay_out(b, s) : 0;
}

void binder_drop_copies(struct binder *b)
{
    while (b->n_copies)
        free(b->copies[--b->n_copies]);
}

/* ---- vectors ----------------------------------------------------------------------------------------------- */

/* Appends a tensor's values to `values`, of which there are *n. */
static int append_f32(struct binder *b, enum schema_row row, float scale, float **values, size_t *n)
{
    struct source s = take(b, row);
    int r = s.t ? lay_out(b, &s) : 0;
    if (r < 0 || !s.t)
        return r;
    size_t more = s.rows * s.cols;
    float *grown = realloc(*values, (*n + more) * sizeof(float)), *to = grown + *n;
    if (!grown)
        return err_set(b->err, ERR_NOMEM, "tensor %s: no memory for a copy", s.t->name);
    *values = grown;
    *n += more;
    dtype_to_f32(to, s.data, s.type, more);
    binder_drop_copies(b);
    for (size_t i = 0; i < more; i++) {
        if (!isfinite(to[i]))
            return err_set(b->err, ERR_CORRUPT, "tensor %s: value %zu is not finite", s.t->name, i);
        to[i] *= scale;
    }
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

int binder_vector(struct binder *b, const enum schema_row *rows, int n_rows, float scale, struct dev_f32 **ret)
{
    float *values = NULL;
    size_t n = 0;
    int r = 0;
    for (int i = 0; i < n_rows && r >= 0; i++)
        r = append_f32(b, rows[i], scale, &values, &n);
    if (r >= 0 && n)
        r = upload(b, values, n, ret);
    binder_drop_copies(b);
    free(values);
    return r;
}

/* ---- matrices ------------------------------------------------------------------------------------------------ */

struct part {
    struct source weight, bias;
};

static int fill_part(struct binder *b, enum schema_row row, struct part *p, struct matrix_part *ret)
{
    p->weight = take(b, row);
    p->bias = row + 1 < SCHEMA_ROWS && schema_is_bias(row + 1) ? take(b, row + 1) : (struct source){0};
    int r = lay_out_matrix(b, &p->weight);
    if (r >= 0 && p->bias.t)
        r = lay_out(b, &p->bias);
    *ret = (struct matrix_part){.data = p->weight.data,
                                .type = p->weight.type,
                                .n = (int)p->weight.rows,
                                .bias = p->bias.data,
                                .bias_type = p->bias.type,
                                .random = p->weight.random};
    return r;
}

static bool all_finite(const struct source *s)
{
    for (size_t i = 0; s->data && i < s->rows * s->cols; i++) {
        float v;
        dtype_to_f32(&v, (const char *)s->data + i * dtype_size(s->type), s->type, 1);
        if (!isfinite(v))
            return false;
    }
    return true;
}

/* The backend refused a matrix: says which tensor it was, where one of several holds a value that is not finite. */
static int blame(struct binder *b, int code, const struct part *parts, int n, const struct err *cause)
{
    for (int i = 0; i < n && code == ERR_CORRUPT; i++) {
        const struct source *s = !all_finite(&parts[i].weight) ? &parts[i].weight : &parts[i].bias;
        if (s->t && !all_finite(s))
            return err_set(b->err, code, "tensor %s holds a value that is not finite", s->t->name);
    }
    return err_set(b->err, code, "%s%s: %s", parts[0].weight.t->name, n > 1 ? " and its neighbours" : "", cause->text);
}

int binder_matrix(struct binder *b, enum matrix_kind kind, const enum schema_row *rows, int n, struct kern_matrix **ret)
{
    struct matrix_part as_given[BINDER_MAX_PARTS] = {0};
    struct part parts[BINDER_MAX_PARTS];
    struct err cause = {0};
    int r = 0;
    assert(n > 0 && n <= BINDER_MAX_PARTS);
    for (int i = 0; i < n && r >= 0; i++)
        r = fill_part(b, rows[i], &parts[i], &as_given[i]);
    if (r >= 0) {
        r = b->k->ops->matrix_new(b->k, kind, as_given, n, (int)parts[0].weight.cols, ret, &cause);
        if (r >= 0)
            b->bytes += b->k->ops->matrix_bytes(*ret);
        else
            r = blame(b, r, parts, n, &cause);
    }
    binder_drop_copies(b);
    return r;
}

/* ---- Mamba routers ------------------------------------------------------------------------------------------- */

int binder_tensor(struct binder *b, enum schema_row row, struct kern_tensor *ret)
{
    struct source s = take(b, row);
    assert(s.t && b->n_copies < BINDER_MAX_COPIES);
    int r = lay_out(b, &s);
    if (r >= 0 && !all_finite(&s))
        r = err_set(b->err, ERR_CORRUPT, "tensor %s holds a value that is not finite", s.t->name);
    *ret = (struct kern_tensor){s.data, s.type};
    return r;
}

/* The backend names a tensor by its part of the name. */
int binder_mamba(struct binder *b, const struct mamba_parts *parts, struct kern_mamba **ret)
{
    struct err cause = {0};
    int r = b->k->ops->mamba_new(b->k, parts, ret, &cause);
    if (r >= 0)
        b->bytes += b->k->ops->mamba_bytes(*ret);
    else
        err_set(b->err, r, "model.layers.%d.%s: %s", b->of.layer, b->of.skip ? "skip_router" : "router", cause.text);
    binder_drop_copies(b);
    return r;
}
