/* Weights from one device to another: matrix by matrix, as the backend packed them, and vector by vector. */
#include "engine/model/weights.h"
#include <stdlib.h>
#include <string.h>

struct copier {
    struct kern_ctx *k, *from;
    int r; /* the first failure; nothing is copied after it */
};

/* A field that was copied with its struct holds the other device's array. */
static void copy_vector(struct copier *c, struct dev_f32 **field, size_t n)
{
    const struct dev_f32 *src = *field;
    size_t bytes = n * sizeof(float);
    *field = NULL;
    if (!src || c->r < 0)
        return;
    struct dev_bytes *p = c->k->backend->alloc(c->k, bytes);
    *field = p ? dev_f32_in(p, 0) : NULL;
    c->r = p ? c->k->backend->copy(c->k, p, c->from, DEV_BYTES(src), bytes) : ERR_NOMEM;
}

static void copy_matrix(struct copier *c, struct kern_matrix **field)
{
    const struct kern_matrix *src = *field;
    *field = NULL;
    if (src && c->r >= 0)
        c->r = c->k->ops->matrix_copy(c->k, c->from, src, field);
}

static void copy_router(struct copier *c, struct router_weights *w)
{
    const struct kern_mamba *mamba = w->mamba;
    size_t dim = (size_t)w->dim;
    w->mamba = NULL;
    if (mamba && c->r >= 0)
        c->r = c->k->ops->mamba_copy(c->k, c->from, mamba, &w->mamba);
    copy_matrix(c, &w->in);
    copy_vector(c, &w->norm, dim);
    copy_vector(c, &w->out, 2 * dim);
    copy_vector(c, &w->out_bias, 2);
    copy_vector(c, &w->threshold, 1);
}

static void copy_layer(struct copier *c, struct layer_weights *w, size_t hidden, size_t head)
{
    copy_vector(c, &w->attn_norm, hidden);
    copy_vector(c, &w->mlp_norm, hidden);
    copy_vector(c, &w->q_norm, head);
    copy_vector(c, &w->k_norm, head);
    copy_vector(c, &w->v_norm, head);
    for (int i = 0; i < w->n_proj; i++)
        copy_matrix(c, &w->proj[i].w);
    copy_matrix(c, &w->o);
    copy_matrix(c, &w->gate_up);
    copy_matrix(c, &w->down);
    copy_router(c, &w->router);
    copy_router(c, &w->skip_router);
}

int weights_copy(struct kern_ctx *k, struct kern_ctx *from, const struct model_config *c, const struct weights *w, struct weights *ret)
{
    struct copier copier = {k, from, 0};
    size_t hidden = (size_t)c->hidden, head = (size_t)model_config_padded_head_dim(c);
    *ret = *w;
    ret->layers = calloc((size_t)w->n_layers, sizeof(*ret->layers));
    if (!ret->layers) {
        *ret = (struct weights){0};
        return ERR_NOMEM;
    }
    memcpy(ret->layers, w->layers, (size_t)w->n_layers * sizeof(*ret->layers));
    copy_matrix(&copier, &ret->embed);
    ret->head = w->head == w->embed ? ret->embed : w->head;
    if (w->head != w->embed)
        copy_matrix(&copier, &ret->head);
    copy_vector(&copier, &ret->final_norm, hidden);
    for (int l = 0; l < w->n_layers; l++)
        copy_layer(&copier, &ret->layers[l], hidden, head);
    return copier.r;
}
