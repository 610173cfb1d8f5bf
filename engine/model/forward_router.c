#include "engine/model/forward_router.h"
#include "engine/model/forward_pack.h"

/* One router, and what it is asked. */
struct question {
    enum router kind;
    const struct router_weights *w;
    struct route_out to;
    struct rows rows; /* that get a decision: all, or those that are packed. A recurrent router's state follows all rows all the same */
    int least;        /* expert choice: decisions that may be chosen from */
    double capacity;
};

static struct route_mlp mlp_of(const struct workspace *w, const struct router_weights *rw, bool packed)
{
    return (struct route_mlp){rw->in, rw->out, rw->out_bias, rw->dim, w->router, packed};
}

static int ask(const struct model *m, struct workspace *w, const struct batch *b, const struct layer_plan *p, const struct question *q)
{
    struct kern_ctx *k = m->k;
    const struct router_weights *rw = q->w;
    switch (q->kind) {
    case ROUTER_MLP: {
        bool packed = q->rows.idx;
        struct route_mlp mlp = mlp_of(w, rw, packed);
        return k->ops->route_mlp(k, &q->to, &mlp, packed ? w->packed_x : w->x, q->rows);
    }
    case ROUTER_MAMBA: {
        struct dev_u8 *bad = dev_u8_at(w->router_bad, (size_t)rw->state * (size_t)b->n_rows);
        return k->ops->route_mamba(k, &q->to, bad, rw->mamba, w->x, &b->step, rw->state, q->rows);
    }
    case ROUTER_MOD: return k->ops->route_mod(k, &q->to, w->x, rw->out, rw->out_bias, rw->dim, q->rows);
    case ROUTER_DLLM: {
        /* the norm inside D-LLM's router has its own fixed eps (docs/architectures.md) */
        struct route_dllm dllm = {rw->norm, 1e-5f, rw->out, rw->out_bias, rw->dim, p->forced};
        int r = k->ops->matmul_accurate(k, w->router, w->x, rw->in, q->rows);
        return r < 0 ? r : k->ops->route_dllm(k, &q->to, &dllm, w->router, b->step.pos, q->rows);
    }
    case ROUTER_NONE: break;
    }
    return 0;
}

/* With expert choice the runs of a first pass are decided by rank; the others keep what their margins say. */
static int decide(const struct model *m, struct workspace *w, const struct batch *b, const struct layer_plan *p, const struct question *q)
{
    int r = ask(m, w, b, p, q);
    if (r < 0 || p->decide != DECIDE_TOP)
        return r;
    return m->k->ops->select_top(m->k, &q->to, w->margin, q->least, q->capacity, &b->step);
}

int forward_router_skip(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    const struct layer_plan *p = &m->plan[layer];
    const struct router_weights *rw = &m->weights.layers[layer].skip_router;
    size_t at = (size_t)layer * (size_t)b->n_rows;
    struct dev_u8 *route = dev_u8_at(w->route, at);
    const struct question q = {.kind = p->skip_router,
                               .w = rw,
                               .to = {.route = route,
                                      .gate = w->skip_gate,
                                      .prob = dev_f32_at(w->skip_prob, at),
                                      .margin = w->margin,
                                      .threshold = rw->threshold,
                                      .below = DECISION_SKIP,
                                      .above = DECISION_LINEAR},
                               .rows = b->step.all,
                               .least = DECISION_SKIP,
                               .capacity = p->exec_capacity};
    int r = decide(m, w, b, p, &q);
    return r < 0 ? r : m->k->ops->list_rows(m->k, w->place.exec, w->place.exec_n, route, DECISION_LINEAR, b->step.all);
}

/* What a layer's attention router is asked. */
static struct question attention_question(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    const struct layer_plan *p = &m->plan[layer];
    const struct router_weights *rw = &m->weights.layers[layer].router;
    bool nested = layer_is_nested(p);
    size_t at = (size_t)layer * (size_t)b->n_rows;
    return (struct question){.kind = p->router,
                             .w = rw,
                             .to = {.route = dev_u8_at(w->route, at),
                                    .gate = w->gate,
                                    .prob = dev_f32_at(w->prob, at),
                                    .margin = w->margin,
                                    .threshold = rw->threshold,
                                    .below = p->below,
                                    .above = p->above},
                             .rows = nested ? (struct rows){w->place.exec, w->place.exec_n, b->n_rows} : b->step.all,
                             .least = nested ? DECISION_LINEAR : DECISION_SKIP,
                             .capacity = p->attn_capacity};
}

int forward_router(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    const struct layer_plan *p = &m->plan[layer];
    bool nested = layer_is_nested(p);
    const struct question q = attention_question(m, w, b, layer);
    int r = nested ? forward_router_skip(m, w, b, layer) : 0;
    if (r >= 0 && nested)
        r = forward_pack(m, w, b, layer);
    return r < 0 ? r : decide(m, w, b, p, &q);
}

int forward_router_place(const struct model *m, struct workspace *w, const struct batch *b, int layer, const struct kern_place *to)
{
    const struct layer_plan *p = &m->plan[layer];
    struct kern_ctx *k = m->k;
    if (!k->ops->route_mlp_place || forward_packs(p) || p->router != ROUTER_MLP || p->decide == DECIDE_TOP || layer_is_nested(p) ||
        b->n_rows > KERN_ROUTE_PLACE_ROWS || b->step.n_branches)
        return 0;
    const struct question q = attention_question(m, w, b, layer);
    struct route_mlp mlp = mlp_of(w, q.w, false);
    return k->ops->route_mlp_place(k, &q.to, &mlp, w->x, &b->step, layer, p->kv == KV_ALL, batch_layer_base(b, layer),
                                   batch_layer_reserved(b, layer), to);
}
