/* Which tensors make which fields of struct weights. */
#include "engine/model/weights.h"
#include "engine/checkpoint/load_progress.h"
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
    return binder_vector(b, &row, 1, 1, ret);
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
    int hd = model_config_padded_head_dim(b->c), q = share_heads(&b->share, b->c) * hd, kv = share_kv_heads(&b->share, b->c) * hd;
    bool linear = layer_has_linear(p);
    int n_first = linear ? 2 : layer_is_routed(p) && p->kv == KV_ALL ? 1 : 3;
    int r = bind_projection(b, lw, rows, n_first, 0, ROWS_ATTENDING);
    if (r < 0 || n_first == 3)
        return r;
    lw->proj[lw->n_proj].bypass = linear && !p->v_norm; /* else values are normed before they are spread */
    return bind_projection(b, lw, rows + n_first, 3 - n_first, n_first == 1 ? q : q + kv, linear ? ROWS_EXECUTED : ROWS_ALL);
}

static int bind_norms(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    const struct {
        enum schema_row row;
        float scale;
        struct dev_f32 **to;
    } norms[] = {
        {SCHEMA_ATTN_NORM, p->norm_scale, &lw->attn_norm},
        {SCHEMA_MLP_NORM, p->norm_scale, &lw->mlp_norm},
        {SCHEMA_Q_NORM, 0, &lw->q_norm},
        {SCHEMA_K_NORM, 0, &lw->k_norm},
        {SCHEMA_V_NORM, 0, &lw->v_norm},
    };
    int r = 0;
    for (int i = 0; i < COUNT(norms) && r >= 0; i++)
        r = binder_vector(b, &norms[i].row, 1, norms[i].scale != 0 ? norms[i].scale : 1, norms[i].to);
    return r;
}

static int bind_block(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    static const enum schema_row gate_up[] = {SCHEMA_GATE, SCHEMA_UP};
    int r = bind_norms(b, p, lw);
    if (r >= 0)
        r = bind_qkv(b, p, lw);
    if (r >= 0)
        r = matrix(b, MATRIX_LINEAR, SCHEMA_O, &lw->o);
    if (r >= 0)
        r = binder_matrix(b, MATRIX_GATE_UP, gate_up, COUNT(gate_up), &lw->gate_up);
    return r >= 0 ? matrix(b, MATRIX_LINEAR, SCHEMA_DOWN, &lw->down) : r;
}

/* ---- routers ---------------------------------------------------------------------------------------------------- */

static int bind_mlp_router(struct binder *b, struct router_weights *w)
{
    w->dim = b->c->hidden / 2;
    int r = matrix(b, MATRIX_ACCURATE, SCHEMA_MLP_ROUTER_IN, &w->in);
    if (r >= 0)
        r = vector(b, SCHEMA_MLP_ROUTER_OUT, &w->out);
    return r >= 0 ? vector(b, SCHEMA_MLP_ROUTER_OUT_BIAS, &w->out_bias) : r;
}

static int bind_mod_router(struct binder *b, struct router_weights *w)
{
    static const enum schema_row out[] = {SCHEMA_MOD_SELECT, SCHEMA_MOD_GATE}, bias[] = {SCHEMA_MOD_SELECT_BIAS, SCHEMA_MOD_GATE_BIAS};
    w->dim = b->c->hidden;
    int r = binder_vector(b, out, COUNT(out), 1, &w->out);
    return r >= 0 ? binder_vector(b, bias, COUNT(bias), 1, &w->out_bias) : r;
}

static int bind_dllm_router(struct binder *b, struct router_weights *w)
{
    w->dim = DLLM_ROUTER_DIM;
    int r = vector(b, SCHEMA_DLLM_ROUTER_NORM, &w->norm);
    if (r >= 0)
        r = matrix(b, MATRIX_ACCURATE, SCHEMA_DLLM_ROUTER_IN, &w->in);
    if (r >= 0)
        r = vector(b, SCHEMA_DLLM_ROUTER_OUT, &w->out);
    return r >= 0 ? vector(b, SCHEMA_DLLM_ROUTER_OUT_BIAS, &w->out_bias) : r;
}

static int bind_mamba_router(struct binder *b, struct router_weights *w)
{
    const struct mamba_config *m = &b->c->mamba;
    struct mamba_parts p = {.d = b->c->hidden,
                            .r = m->dim,
                            .e = m->inner,
                            .n_state = m->d_state,
                            .n_conv = m->d_conv,
                            .n_dt = m->dt_rank,
                            .eps = b->c->rms_eps};
    const struct {
        enum schema_row row;
        struct kern_tensor *to;
    } tensors[] = {
        {SCHEMA_MAMBA_IN, &p.in_proj},
        {SCHEMA_MAMBA_IN_BIAS, &p.in_proj_bias},
        {SCHEMA_MAMBA_NORM, &p.norm},
        {SCHEMA_MAMBA_MIXER_IN, &p.mixer_in_proj},
        {SCHEMA_MAMBA_CONV, &p.conv1d},
        {SCHEMA_MAMBA_CONV_BIAS, &p.conv1d_bias},
        {SCHEMA_MAMBA_X, &p.x_proj},
        {SCHEMA_MAMBA_DT, &p.dt_proj},
        {SCHEMA_MAMBA_DT_BIAS, &p.dt_proj_bias},
        {SCHEMA_MAMBA_A_LOG, &p.a_log},
        {SCHEMA_MAMBA_D, &p.skip},
        {SCHEMA_MAMBA_MIXER_OUT, &p.mixer_out_proj},
        {SCHEMA_MAMBA_OUT, &p.out_proj},
        {SCHEMA_MAMBA_OUT_BIAS, &p.out_proj_bias},
    };
    int r = 0;
    for (int i = 0; i < COUNT(tensors) && r >= 0; i++)
        r = binder_tensor(b, tensors[i].row, tensors[i].to);
    return r >= 0 ? binder_mamba(b, &p, &w->mamba) : r;
}

static int bind_router(struct binder *b, struct router_weights *w)
{
    int r = 0;
    switch (b->of.skip ? b->of.plan->skip_router : b->of.plan->router) {
    case ROUTER_MLP: r = bind_mlp_router(b, w); break;
    case ROUTER_MOD: r = bind_mod_router(b, w); break;
    case ROUTER_DLLM: r = bind_dllm_router(b, w); break;
    case ROUTER_MAMBA: r = bind_mamba_router(b, w); break;
    case ROUTER_NONE: break;
    }
    return r >= 0 ? vector(b, SCHEMA_THRESHOLD, &w->threshold) : r;
}

static int bind_layer(struct binder *b, int l, const struct layer_plan *p, struct layer_weights *lw)
{
    b->of = (struct schema_of){.layer = l, .plan = p, .skip = true};
    int r = bind_router(b, &lw->skip_router);
    b->of.skip = false;
    if (r >= 0)
        r = bind_router(b, &lw->router);
    return r >= 0 ? bind_block(b, p, lw) : r;
}

/* Router states are numbered layers ascending, in a nested layer the skip router's first. */
static void number_states(const struct layer_plan *plan, struct weights *w)
{
    for (int l = 0; l < w->n_layers; l++) {
        w->layers[l].skip_router.state = w->n_states;
        w->layers[l].router.state = w->n_states + (plan[l].skip_router == ROUTER_MAMBA);
        w->n_states += layer_n_states(&plan[l]);
    }
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int bind_ends(struct binder *b, struct weights *w)
{
    b->of = (struct schema_of){.layer = -1};
    int r = matrix(b, MATRIX_EMBED, SCHEMA_EMBED, &w->embed);
    if (r >= 0 && b->c->tied)
        w->head = w->embed;
    else if (r >= 0 && !b->share.rank) /* the first rank alone runs it */
        r = matrix(b, MATRIX_LINEAR, SCHEMA_HEAD, &w->head);
    return r >= 0 ? vector(b, SCHEMA_FINAL_NORM, &w->final_norm) : r;
}

static int bind_all(struct binder *b, const struct layer_plan *plan, struct load_progress *progress, struct weights *w)
{
    w->n_layers = b->c->n_layers;
    w->layers = calloc((size_t)w->n_layers, sizeof(*w->layers));
    if (!w->layers)
        return err_set(b->err, ERR_NOMEM, "no memory for the list of weights");
    number_states(plan, w);
    int r = bind_ends(b, w);
    for (int l = 0; l < w->n_layers && r >= 0; l++) {
        r = bind_layer(b, l, &plan[l], &w->layers[l]);
        load_progress_add(progress, 1);
    }
    return r;
}

int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 const struct share *share, struct load_progress *progress, struct weights *ret, struct err *err)
{
    struct weights w = {0};
    struct binder b = {.k = k, .c = c, .share = *share, .s = s, .err = err};
    int r = tensor_match(c, plan, s, &w.n_params, err);
    if (r >= 0)
        r = bind_all(&b, plan, progress, &w);
    binder_drop_copies(&b);
    w.bytes = b.bytes;
    if (r < 0)
        weights_free(k, &w);
    else
        *ret = w;
    return r;
}

static void free_router(struct kern_ctx *k, struct router_weights *w)
{
    k->ops->mamba_free(k, w->mamba);
    k->ops->matrix_free(k, w->in);
    k->backend->free(k, DEV_BYTES(w->norm));
    k->backend->free(k, DEV_BYTES(w->out));
    k->backend->free(k, DEV_BYTES(w->out_bias));
    k->backend->free(k, DEV_BYTES(w->threshold));
}

static void free_layer(struct kern_ctx *k, struct layer_weights *lw)
{
    const struct kern_ops *o = k->ops;
    struct dev_f32 *const vectors[] = {lw->attn_norm, lw->mlp_norm, lw->q_norm, lw->k_norm, lw->v_norm};
    for (int i = 0; i < COUNT(vectors); i++)
        k->backend->free(k, DEV_BYTES(vectors[i]));
    for (int i = 0; i < lw->n_proj; i++)
        o->matrix_free(k, lw->proj[i].w);
    o->matrix_free(k, lw->o);
    o->matrix_free(k, lw->gate_up);
    o->matrix_free(k, lw->down);
    free_router(k, &lw->router);
    free_router(k, &lw->skip_router);
}

int weights_bind_router(struct kern_ctx *k, const struct model_config *c, struct schema_of of, const struct safetensors *s,
                        struct weights *w, struct err *err)
{
    struct binder b = {.k = k, .c = c, .s = s, .of = of, .err = err};
    struct router_weights *rw = of.skip ? &w->layers[of.layer].skip_router : &w->layers[of.layer].router;
    int state = rw->state;
    free_router(k, rw);
    *rw = (struct router_weights){.state = state};
    return bind_router(&b, rw);
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
