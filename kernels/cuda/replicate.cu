/* Weights of one device on another: the bytes as they were packed; what holds addresses is made anew. */
#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/mamba.cuh"
#include "kernels/cuda/matmul.cuh"
#include <stdlib.h>

/* Makes *ret a copy of `bytes` at src on the other device; NULL stays NULL. */
static int take(struct kern_ctx *k, struct kern_ctx *from, const void *src, size_t bytes, void **ret)
{
    *ret = NULL;
    if (!src)
        return 0;
    *ret = bytes_of(k->backend->alloc(k, bytes));
    return *ret ? copies_peer(k, to_dev(*ret), from, to_dev(src), bytes) : ERR_NOMEM;
}

static int matrix_copy_cuda(struct kern_ctx *k, struct kern_ctx *from, const struct kern_matrix *w, struct kern_matrix **ret)
{
    struct kern_matrix *m = (struct kern_matrix *)malloc(sizeof(*m));
    if (!m)
        return ERR_NOMEM;
    *m = *w;
    m->data = m->terms = NULL;
    m->bias = m->unscale = NULL;
    size_t size = w->kind == MATRIX_ACCURATE ? 4 : dtype_size(k->act);
    void *bias = NULL, *unscale = NULL;
    int r = take(k, from, w->data, (size_t)w->rows * w->ld * size, &m->data);
    if (r >= 0)
        r = take(k, from, w->bias, (size_t)w->rows * sizeof(float), &bias);
    m->bias = (float *)bias;
    if (r >= 0)
        r = take(k, from, w->terms, matrix_terms_bytes(w, w->n_terms, w->term_ld), &m->terms);
    if (r >= 0)
        r = take(k, from, w->unscale, matrix_unscale_bytes(w), &unscale);
    m->unscale = (float *)unscale;
    if (r >= 0)
        r = matrix_map(ctx_of(k), m);
    if (r < 0) {
        k->ops->matrix_free(k, m);
        return r;
    }
    *ret = m;
    return 0;
}

/* Arrays lie in one allocation. */
static void move_arrays(struct mamba_weights *w, const char *from, const char *to)
{
    const float **arrays[] = {&w->norm, &w->mix_t, &w->x_t, &w->conv, &w->conv_bias, &w->dt, &w->dt_bias, &w->rate, &w->skip};
    const double **doubles[] = {&w->of_u, &w->of_y};
    for (const float **a : arrays)
        *a = (const float *)(to + ((const char *)*a - from));
    for (const double **a : doubles)
        *a = (const double *)(to + ((const char *)*a - from));
}

static int mamba_copy_cuda(struct kern_ctx *k, struct kern_ctx *from, const struct kern_mamba *w, struct kern_mamba **ret)
{
    struct kern_mamba *m = (struct kern_mamba *)malloc(sizeof(*m));
    void *memory = NULL;
    if (!m)
        return ERR_NOMEM;
    *m = *w;
    m->in = m->mix = m->x = NULL;
    int r = take(k, from, bytes_of(w->memory), w->bytes, &memory);
    m->memory = to_dev(memory);
    if (r >= 0) {
        move_arrays(&m->w, (const char *)bytes_of(w->memory), (const char *)memory);
        r = k->ops->matrix_copy(k, from, w->in, &m->in);
    }
    if (r >= 0 && w->mix)
        r = k->ops->matrix_copy(k, from, w->mix, &m->mix);
    if (r >= 0 && w->x)
        r = k->ops->matrix_copy(k, from, w->x, &m->x);
    if (r < 0) {
        k->ops->mamba_free(k, m);
        return r;
    }
    *ret = m;
    return 0;
}

void replicate_cuda_init(struct kern_ops *o)
{
    o->matrix_copy = matrix_copy_cuda;
    o->mamba_copy = mamba_copy_cuda;
}
