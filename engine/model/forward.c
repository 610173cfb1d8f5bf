/* One loop for every architecture: what a layer does follows from its record in the plan. */
#include "engine/model/forward.h"
#include <math.h>

/* The rows of a step as a layer divides them. */
struct layer_rows {
    struct rows all, selected;
    struct rows executed; /* rows that the layer changes: everyone, or the selected where the others skip it */
    struct rows normed;   /* rows whose normed input something reads */
};

/* After the last layer only wanted rows are read, so only they need its output projection and MLP. */
static struct layer_rows divide_rows(const struct layer_plan *p, const struct workspace *w, const struct batch *b, bool last)
{
    struct layer_rows r = {.all = b->step.all};
    if (p->kind == LAYER_DENSE) {
        r.selected = r.executed = r.normed = r.all;
    } else {
        r.selected = (struct rows){w->place.sel, w->place.sel_n, b->n_rows};
        r.executed = p->unselected == UNSELECTED_SKIP ? r.selected : r.all;
        r.normed = p->kv_all ? r.all : r.executed;
    }
    if (last && p->unselected != UNSELECTED_SKIP)
        r.executed = (struct rows){.idx = b->d_want_row, .n_max = b->n_want};
    return r;
}

int forward_router(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    const struct layer_weights *lw = &m->weights.layers[layer];
    const struct layer_plan *p = &m->plan[layer];
    struct kern_ctx *k = m->k;
    struct rows all = b->step.all;
    size_t at = (size_t)layer * (size_t)b->n_rows;
    struct route_out to = {.route = dev_u8_at(w->route, at),
                           .gate = w->gate,
                           .prob = dev_f32_at(w->prob, at),
                           .below = p->unselected == UNSELECTED_SKIP ? DECISION_SKIP : DECISION_LINEAR,
                           .above = DECISION_ATTEND};
    switch (p->kind) {
    case LAYER_DTRNET: {
        struct route_mlp mlp = {lw->router_in, lw->router_out, lw->router_out_bias, lw->router_dim, w->router};
        return k->ops->route_mlp(k, &to, &mlp, w->x, all);
    }
    case LAYER_MOD: return k->ops->route_mod(k, &to, w->x, lw->router_out, lw->router_out_bias, lw->router_dim, all);
    case LAYER_DLLM: {
        /* the norm inside D-LLM's router has its own fixed eps */
        struct route_dllm dllm = {lw->router_norm, 1e-5f, lw->router_out, lw->router_out_bias, lw->router_dim, p->forced};
        int r = k->ops->matmul_accurate(k, w->router, w->x, lw->router_in, all);
        return r < 0 ? r : k->ops->route_dllm(k, &to, &dllm, w->router, b->step.pos, all);
    }
    case LAYER_DENSE: break;
    }
    return 0;
}

static int attention_block(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_cache *kv, int layer,
                           const struct layer_rows *rows)
{
    const struct model_config *c = &m->config;
    const struct layer_weights *lw = &m->weights.layers[layer];
    const struct layer_plan *p = &m->plan[layer];
    struct kern_ctx *k = m->k;
    struct kern_heads heads = {.h = c->n_heads, .hk = c->n_kv_heads, .hd = c->head_dim, .kv = kv->kv};
    int width = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim, r;
    r = k->ops->rmsnorm(k, w->xn, NULL, w->x, lw->attn_norm, rows->normed, c->hidden, c->rms_eps);
    for (int i = 0; r >= 0 && i < lw->n_proj; i++) {
        const struct projection *proj = &lw->proj[i];
        struct rows of = proj->rows == ROWS_ALL ? rows->all : rows->selected;
        r = proj->bypass ? k->ops->matmul_bypass(k, &heads, w->attn, w->qkv, w->xn, proj->w, c->hidden, of)
                         : k->ops->matmul(k, w->qkv, proj->col, width, w->xn, c->hidden, proj->w, of);
    }
    if (r >= 0)
        r = k->ops->rope_store(k, &heads, w->qkv, m->rope_cos, m->rope_sin, &b->step, w->place.slot, rows->selected);
    if (r >= 0)
        r = k->ops->attention(k, &heads, w->attn, w->qkv, &b->step, layer, &w->place, 1.0f / sqrtf((float)c->head_dim));
    if (r >= 0)
        r = k->ops->matmul_residual(k, w->x, w->attn, c->n_heads * c->head_dim, lw->o, p->gate == GATE_ATTENTION ? w->gate : NULL,
                                    rows->executed);
    return r;
}

static int mlp_block(const struct model *m, struct workspace *w, int layer, struct rows rows)
{
    const struct layer_weights *lw = &m->weights.layers[layer];
    struct kern_ctx *k = m->k;
    int r = k->ops->rmsnorm(k, w->xn, NULL, w->x, lw->mlp_norm, rows, m->config.hidden, m->config.rms_eps);
    if (r >= 0)
        r = k->ops->matmul_swiglu(k, w->ffn, w->xn, lw->gate_up, rows);
    if (r >= 0)
        r = k->ops->matmul_residual(k, w->x, w->ffn, m->config.ffn, lw->down, NULL, rows);
    return r;
}

int forward_layer(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_cache *kv, int layer)
{
    const struct layer_plan *p = &m->plan[layer];
    struct kern_ctx *k = m->k;
    const struct dev_u8 *route = p->kind == LAYER_DENSE ? NULL : dev_u8_at(w->route, (size_t)layer * (size_t)b->n_rows);
    int d = m->config.hidden, r = forward_router(m, w, b, layer);
    if (r >= 0)
        r = k->ops->place(k, &b->step, layer, route, p->kv_all, batch_layer_base(b, layer), batch_layer_reserved(b, layer), &w->place);
    struct layer_rows rows = divide_rows(p, w, b, layer == m->config.n_layers - 1);
    if (r >= 0 && p->gate == GATE_LAYER)
        r = k->ops->copy_rows(k, w->x0, w->x, d, rows.executed);
    if (r >= 0)
        r = attention_block(m, w, b, kv, layer, &rows);
    if (r >= 0)
        r = mlp_block(m, w, layer, rows.executed);
    if (r >= 0 && p->gate == GATE_LAYER)
        r = k->ops->blend(k, w->x, w->x0, w->gate, BLEND_ADD, d, rows.executed);
    return r;
}

int forward_embed(const struct model *m, struct workspace *w, const struct batch *b)
{
    return m->k->ops->embed(m->k, w->x, m->weights.embed, b->d_ids, b->step.all);
}

int forward_layers(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_cache *kv)
{
    int r = forward_embed(m, w, b);
    for (int l = 0; r >= 0 && l < m->config.n_layers; l++)
        r = forward_layer(m, w, b, kv, l);
    return r;
}

int forward_scores(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k)
{
    struct kern_scores to = {
        .target = b->d_want_target, .target_lp = w->target_lp, .top_k = top_k, .top_id = w->top_id, .top_lp = w->top_lp, .bad = w->bad};
    return m->k->ops->logprobs(m->k, &to, first, w->logits, (size_t)m->config.vocab, n, m->config.vocab);
}

int forward_head(const struct model *m, struct workspace *w, const struct batch *b, int first, int n, int top_k)
{
    const struct model_config *c = &m->config;
    struct kern_ctx *k = m->k;
    struct rows wanted = {.idx = dev_i32_at(b->d_want_row, (size_t)first), .n_max = n}, compact = {.n_max = n};
    int r = k->ops->gather_rows(k, w->want_x, w->x, c->hidden, wanted);
    if (r >= 0)
        r = k->ops->rmsnorm(k, w->want_xn, NULL, w->want_x, m->weights.final_norm, compact, c->hidden, c->rms_eps);
    if (r >= 0)
        r = k->ops->matmul_f32(k, w->logits, w->want_xn, m->weights.head, compact);
    return r < 0 ? r : forward_scores(m, w, b, first, n, top_k);
}
