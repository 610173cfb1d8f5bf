/* Which tensors make which fields of struct weights. */
#include "engine/model/weights.h"
#include "engine/checkpoint/tensor_match.h"
#include "engine/model/binder.h"
#include <stdlib.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static int matrix(struct binder *b, enum matrix_kind kind, enum schema_row row, struct kern_matrix **ret)
{
    return binder_matrix(b, kind, &row, 1, ret);
}

static int vector(struct binder *b, enum schema_row row, struct dev_f32 **ret)
{
    return binder_vector(b, &row, 1, ret);
}

/* ---- a layer -------------------------------------------------------------------------------------------------- */

static int bind_projection(struct binder *b, struct layer_weights *lw, const enum schema_row *rows, int n, int col, enum row_set of)
{
    struct projection *p = &lw->proj[lw->n_proj];
    p->col = col;
    p->rows = of;
    lw->n_proj++;
    return binder_matrix(b, MATRIX_LINEAR, rows, n, &p->w);
}

/* Which projections go together follows from which rows need them. */
static int bind_qkv(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    static const enum schema_row rows[3] = {SCHEMA_Q, SCHEMA_K, SCHEMA_V};
    const struct model_config *c = b->c;
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    int n_first = !layer_is_routed(p) ? 3 : layer_has_linear(p) ? 2 : p->kv == KV_ALL ? 1 : 3;
    int r = bind_projection(b, lw, rows, n_first, 0, ROWS_SELECTED);
    if (r < 0 || n_first == 3)
        return r;
    lw->proj[lw->n_proj].bypass = layer_has_linear(p);
    return bind_projection(b, lw, rows + n_first, 3 - n_first, n_first == 1 ? q : q + kv, ROWS_ALL);
}

static int bind_block(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    static const enum schema_row gate_up[] = {SCHEMA_GATE, SCHEMA_UP};
    int r = vector(b, SCHEMA_ATTN_NORM, &lw->attn_norm);
    if (r >= 0)
        r = vector(b, SCHEMA_MLP_NORM, &lw->mlp_norm);
    if (r >= 0)
        r = bind_qkv(b, p, lw);
    if (r >= 0)
        r = matrix(b, MATRIX_LINEAR, SCHEMA_O, &lw->o);
    if (r >= 0)
        r = binder_matrix(b, MATRIX_GATE_UP, gate_up, COUNT(gate_up), &lw->gate_up);
    return r >= 0 ? matrix(b, MATRIX_LINEAR, SCHEMA_DOWN, &lw->down) : r;
}

static int bind_mlp_router(struct binder *b, struct layer_weights *lw)
{
    lw->router_dim = b->c->hidden / 2;
    int r = matrix(b, MATRIX_ACCURATE, SCHEMA_MLP_ROUTER_IN, &lw->router_in);
    if (r >= 0)
        r = vector(b, SCHEMA_MLP_ROUTER_OUT, &lw->router_out);
    return r >= 0 ? vector(b, SCHEMA_MLP_ROUTER_OUT_BIAS, &lw->router_out_bias) : r;
}

static int bind_mod_router(struct binder *b, struct layer_weights *lw)
{
    static const enum schema_row out[] = {SCHEMA_MOD_SELECT, SCHEMA_MOD_GATE}, bias[] = {SCHEMA_MOD_SELECT_BIAS, SCHEMA_MOD_GATE_BIAS};
    lw->router_dim = b->c->hidden;
    int r = binder_vector(b, out, COUNT(out), &lw->router_out);
    return r >= 0 ? binder_vector(b, bias, COUNT(bias), &lw->router_out_bias) : r;
}

static int bind_dllm_router(struct binder *b, struct layer_weights *lw)
{
    lw->router_dim = DLLM_ROUTER_DIM;
    int r = vector(b, SCHEMA_DLLM_ROUTER_NORM, &lw->router_norm);
    if (r >= 0)
        r = matrix(b, MATRIX_ACCURATE, SCHEMA_DLLM_ROUTER_IN, &lw->router_in);
    if (r >= 0)
        r = vector(b, SCHEMA_DLLM_ROUTER_OUT, &lw->router_out);
    return r >= 0 ? vector(b, SCHEMA_DLLM_ROUTER_OUT_BIAS, &lw->router_out_bias) : r;
}

static int bind_router(struct binder *b, enum router router, struct layer_weights *lw)
{
    switch (router) {
    case ROUTER_MLP: return bind_mlp_router(b, lw);
    case ROUTER_MOD: return bind_mod_router(b, lw);
    case ROUTER_DLLM: return bind_dllm_router(b, lw);
    case ROUTER_MAMBA:
    case ROUTER_NONE: break;
    }
    return 0;
}

static int bind_layer(struct binder *b, int l, const struct layer_plan *p, struct layer_weights *lw)
{
    b->of = (struct schema_of){.layer = l, .plan = p};
    int r = bind_router(b, p->router, lw);
    return r >= 0 ? bind_block(b, p, lw) : r;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int bind_ends(struct binder *b, struct weights *w)
{
    b->of = (struct schema_of){.layer = -1};
    int r = matrix(b, MATRIX_EMBED, SCHEMA_EMBED, &w->embed);
    if (r >= 0 && b->c->tied)
        w->head = w->embed;
    else if (r >= 0)
        r = matrix(b, MATRIX_LINEAR, SCHEMA_HEAD, &w->head);
    return r >= 0 ? vector(b, SCHEMA_FINAL_NORM, &w->final_norm) : r;
}

static int bind_all(struct binder *b, const struct layer_plan *plan, struct weights *w)
{
    w->n_layers = b->c->n_layers;
    w->layers = calloc((size_t)w->n_layers, sizeof(*w->layers));
    if (!w->layers)
        return err_set(b->err, ERR_NOMEM, "no memory for the list of weights");
    int r = bind_ends(b, w);
    for (int l = 0; l < w->n_layers && r >= 0; l++)
        r = bind_layer(b, l, &plan[l], &w->layers[l]);
    return r;
}

int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 struct weights *ret, struct err *err)
{
    struct weights w = {0};
    struct binder b = {.k = k, .c = c, .s = s, .err = err};
    int r = tensor_match(c, plan, s, &w.n_params, err);
    if (r >= 0)
        r = bind_all(&b, plan, &w);
    w.bytes = b.bytes;
    if (r < 0)
        weights_free(k, &w);
    else
        *ret = w;
    return r;
}

static void free_layer(struct kern_ctx *k, struct layer_weights *lw)
{
    const struct kern_ops *o = k->ops;
    struct dev_f32 *const vectors[] = {lw->attn_norm, lw->mlp_norm, lw->router_norm, lw->router_out, lw->router_out_bias};
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
        k->backend->free(k, DEV_BYTES(vectors[i]));
    for (int i = 0; i < lw->n_proj; i++)
        o->matrix_free(k, lw->proj[i].w);
    o->matrix_free(k, lw->o);
    o->matrix_free(k, lw->gate_up);
    o->matrix_free(k, lw->down);
    o->matrix_free(k, lw->router_in);
}

void weights_free(struct kern_ctx *k, struct weights *w)
{
    if (w->head != w->embed)
        k->ops->matrix_free(k, w->head);
    k->ops->matrix_free(k, w->embed);
    k->backend->free(k, DEV_BYTES(w->final_norm));
    for (int l = 0; w->layers && l < w->n_layers; l++)
        free_layer(k, &w->layers[l]);
    free(w->layers);
    *w = (struct weights){0};
}

enum dtype weights_stored_dtype(const struct safetensors *s)
{
    enum dtype t = DTYPE_F32;
    const struct tensor *embed = safetensors_find(s, "model.embed_tokens.weight");
    if (embed)
        (void)tensor_match_dtype(embed, &t, NULL);
    return t;
}
