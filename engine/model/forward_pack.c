#include "engine/model/forward_pack.h"

/* Executed rows as the step counts them. */
static struct rows executed(const struct workspace *w, const struct batch *b)
{
    return (struct rows){w->place.exec, w->place.exec_n, b->n_rows};
}

int forward_pack(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    const struct model_config *c = &m->config;
    const struct kern_ops *o = m->k->ops;
    struct rows from = executed(w, b), packed = {NULL, w->place.exec_n, b->n_rows};
    if (!m->plan[layer].no_attn_norm)
        return o->gather_norm(m->k, w->xn, w->packed_x, w->x, m->weights.layers[layer].attn_norm, from, c->hidden, c->rms_eps);
    int r = o->gather_rows(m->k, w->packed_x, w->x, c->hidden, from);
    return r < 0 ? r : o->cast_rows(m->k, w->xn, w->packed_x, packed, c->hidden);
}

struct kern_place forward_pack_place(const struct workspace *w, const struct layer_plan *p)
{
    struct kern_place to = w->place;
    if (!forward_packs(p))
        to.packed = (struct kern_packed){0};
    else if (p->attn_gate == GATE_CHOSEN)
        to.packed.gate_of = w->gate;
    else
        to.packed.gate = NULL;
    return to;
}

struct kern_step forward_pack_step(const struct batch *b, const struct kern_place *place)
{
    struct kern_step s = b->step;
    s.all = (struct rows){NULL, place->exec_n, b->n_rows};
    s.pos = place->packed.pos;
    s.run_of = place->packed.run_of;
    return s;
}

/* The gate over all of the layer, by step row, and how it is used. */
struct layer_gate {
    const struct dev_f32 *gate;
    enum blend_mode mode;
};

static struct layer_gate layer_gate(const struct workspace *w, const struct layer_plan *p)
{
    bool towards = p->layer_gate == GATE_TOWARDS;
    return (struct layer_gate){towards ? w->skip_gate : w->gate, towards ? BLEND_TOWARDS : BLEND_ADD};
}

int forward_pack_product(const struct model *m, struct workspace *w, const struct batch *b, int layer, const struct dev_act *a, int lda,
                         const struct kern_matrix *last)
{
    struct layer_gate g = layer_gate(w, &m->plan[layer]);
    return m->k->ops->matmul_blend(m->k, w->x, w->packed_x, a, lda, last, g.gate, g.mode, executed(w, b));
}

int forward_pack_blend(const struct model *m, struct workspace *w, const struct batch *b, int layer)
{
    struct layer_gate g = layer_gate(w, &m->plan[layer]);
    return m->k->ops->blend(m->k, w->x, w->packed_x, g.gate, g.mode, m->config.hidden, executed(w, b));
}
