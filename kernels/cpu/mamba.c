/* Weights of Mamba routers, and the scratch of the op. */
#include "kernels/cpu/mamba.h"
#include "kernels/cpu/ops.h"
#include <stdlib.h>

/* ---- scratch ---- */

/* Cuts `floats` off the memory at *at, in whole cache lines. */
static float *cut(float *memory, size_t *at, size_t floats)
{
    float *p = memory + *at;
    *at += (floats + 15) / 16 * 16;
    return memory ? p : NULL;
}

static size_t divide(struct mamba_block *b, const struct kern_mamba *w, float *memory)
{
    size_t at = 0, n = MAMBA_BLOCK, e = (size_t)w->v.e, halo = 2 * e * (size_t)(w->v.n_conv - 1);
    b->u = cut(memory, &at, n * (size_t)w->v.r);
    b->normed = cut(memory, &at, n * (size_t)w->v.r);
    b->az = cut(memory, &at, halo + n * 2 * e);
    b->c = cut(memory, &at, n * e);
    b->x = cut(memory, &at, n * (size_t)w->v.x_cols);
    b->delta = cut(memory, &at, n * (size_t)w->ep);
    b->input = cut(memory, &at, n * (size_t)w->ep);
    for (int i = 0; i < MAMBA_PARTS; i++)
        b->y[i] = cut(memory, &at, n * (size_t)w->ep);
    b->carry = cut(memory, &at, e * (size_t)w->v.n_state);
    float *zeros = cut(memory, &at, e);
    b->wanted = (unsigned char *)cut(memory, &at, n / sizeof(float));
    if (!memory)
        return at;
    b->az += halo;
    memset(zeros, 0, e * sizeof(float));
    b->zeros = zeros;
    for (size_t i = 0; i < n && e < (size_t)w->ep; i++) { /* what the scan's last vector reads beyond the channels */
        memset(b->delta + i * (size_t)w->ep + e, 0, ((size_t)w->ep - e) * sizeof(float));
        memset(b->input + i * (size_t)w->ep + e, 0, ((size_t)w->ep - e) * sizeof(float));
    }
    return at;
}

void mamba_divide_scratch(struct mamba_block *b)
{
    divide(b, b->w, cpu_of(b->k)->mamba.memory);
}

static int reserve_floats(struct cpu *c, size_t floats)
{
    if (floats <= c->mamba.floats)
        return 0;
    float *fresh = aligned_alloc(64, floats * sizeof(float));
    if (!fresh)
        return ERR_NOMEM;
    free(c->mamba.memory);
    c->mamba.memory = fresh;
    c->mamba.floats = floats;
    return 0;
}

static int reserve(struct cpu *c, const struct kern_mamba *w)
{
    struct mamba_block unused;
    return reserve_floats(c, divide(&unused, w, NULL));
}

int mamba_reserve_as(struct cpu *c, const struct cpu *other)
{
    return reserve_floats(c, other->mamba.floats);
}

/* ---- weights ---- */

static void mamba_free_c(struct kern_ctx *k, struct kern_mamba *w)
{
    if (!w)
        return;
    const struct kern_ops *o = &cpu_of(k)->ops;
    o->matrix_free(k, w->in);
    o->matrix_free(k, w->mix);
    o->matrix_free(k, w->x);
    mamba_values_free(&w->v);
    free(w->rate);
    free(w);
}

static size_t mamba_bytes_c(const struct kern_mamba *w)
{
    return w->bytes;
}

static size_t count_bytes(const struct kern_ops *o, const struct kern_mamba *w)
{
    const struct mamba_values *v = &w->v;
    size_t floats = 3 * (size_t)v->r + (size_t)v->e * (size_t)(v->n_conv + v->n_dt + v->n_state + 5) + (size_t)w->ep * (size_t)v->n_state;
    return sizeof(*w) + floats * sizeof(float) + o->matrix_bytes(w->in) + o->matrix_bytes(w->mix) + o->matrix_bytes(w->x);
}

static int take_matrix(struct kern_ctx *k, struct kern_matrix **ret, const struct kern_tensor *t, const struct kern_tensor *bias, int n,
                       int cols, struct err *err)
{
    struct matrix_part part = {t->data, t->type, n, bias ? bias->data : NULL, bias ? bias->type : DTYPE_F32};
    return cpu_of(k)->ops.matrix_new(k, MATRIX_ACCURATE, &part, 1, cols, ret, err);
}

static int take_rates(struct kern_mamba *w)
{
    w->ep = (w->v.e + MAMBA_GROUP - 1) / MAMBA_GROUP * MAMBA_GROUP;
    w->rate = calloc((size_t)w->v.n_state * (size_t)w->ep, sizeof(float));
    for (int e = 0; w->rate && e < w->v.e; e++)
        for (int i = 0; i < w->v.n_state; i++)
            w->rate[(size_t)i * (size_t)w->ep + (size_t)e] = w->v.rate[(size_t)e * (size_t)w->v.n_state + (size_t)i];
    return w->rate ? 0 : ERR_NOMEM;
}

static int mamba_new_c(struct kern_ctx *k, const struct mamba_parts *p, struct kern_mamba **ret, struct err *err)
{
    struct kern_mamba *w = calloc(1, sizeof(*w));
    int r = w ? mamba_values_new(p, &w->v, err) : err_set(err, ERR_NOMEM, "not enough memory for a Mamba router");
    if (r >= 0 && (take_rates(w) < 0 || reserve(cpu_of(k), w) < 0))
        r = err_set(err, ERR_NOMEM, "not enough memory for a Mamba router");
    if (r >= 0)
        r = take_matrix(k, &w->in, &p->in_proj, &p->in_proj_bias, p->r, p->d, err);
    if (r >= 0)
        r = take_matrix(k, &w->mix, &p->mixer_in_proj, NULL, 2 * p->e, p->r, err);
    if (r >= 0)
        r = take_matrix(k, &w->x, &p->x_proj, NULL, w->v.x_cols, p->e, err);
    if (r < 0) {
        mamba_free_c(k, w);
        return r;
    }
    w->bytes = count_bytes(&cpu_of(k)->ops, w);
    *ret = w;
    return 0;
}

void mamba_weights_init(struct kern_ops *o)
{
    o->mamba_new = mamba_new_c;
    o->mamba_free = mamba_free_c;
    o->mamba_bytes = mamba_bytes_c;
}
