/* One loop for every architecture: what a layer does follows from its record in the plan. Ranks of a model compute their own heads and columns of each
 * product and gather the others': four times a layer (heads, columns of x behind o, of the MLP's middle, of x behind down). Where a step has many rows, a layer
 * does this with one half of them and then with the other: what one half gathers is copied while the other is computed. */
#include "engine/model/forward.h"
#include "engine/model/forward_pack.h"
#include <math.h>

/* The rows of a step as a layer divides them; where it packs them, packed ones. */
struct layer_rows {
    struct rows all, executed, attending;
    struct rows normed;   /* rows whose input attention's projections read */
    struct rows finished; /* executed rows whose output something reads */
};

/* After the last layer only wanted rows are read, so where all are executed only they need its output projection and MLP. */
static struct layer_rows divide_rows(const struct layer_plan *p, const struct workspace *w, const struct batch *b, bool last)
{
    struct layer_rows r = {.all = b->step.all, .executed = b->step.all, .attending = b->step.all};
    if (layer_is_routed(p))
        r.attending = (struct rows){w->place.sel, w->place.sel_n, b->n_rows};
    if (forward_packs(p))
        r.all = r.executed = (struct rows){NULL, w->place.exec_n, b->n_rows};
    else if (layer_can_skip(p))
        r.executed = (struct rows){w->place.exec, w->place.exec_n, b->n_rows};
    r.normed = p->kv == KV_ALL ? r.all : r.executed;
    r.finished = last && !layer_can_skip(p) ? (struct rows){.idx = b->d_want_row, .n_max = b->n_want} : r.executed;
    return r;
}

/* What a layer works on: all rows of the step, packed rows, or a part of all rows. */
struct layer {
    const struct model *m;
    struct workspace *w;
    const struct batch *b;
    const struct layer_plan *p;
    const struct layer_weights *lw;
    struct kern_heads heads; /* those that the model holds */
    struct kern_step step;
    struct kern_place place;
    const struct dev_f32 *gate; /* of o's output; NULL: none */
    struct layer_rows rows;
    int index, width; /* width: of a row of qkv */
    bool placed;      /* its rows were listed with those of the other unrouted layers */
    int n_rows;       /* what gathers copy */
    int n_parts;      /* that a layer's rows are computed in, 1 or 2; of a part likewise */
    /* as in the workspace, from the first row of these on; own_: what the rank has, where it is one */
    struct dev_f32 *x, *own_x;
    struct dev_act *xn, *qkv, *attn, *own_attn, *ffn, *own_ffn;
};

/* ---- parts of the rows ------------------------------------------------------------------------------------------ */
static bool all_rows(const struct rows *r)
{
    return !r->idx && !r->n_dev;
}

static int n_parts(const struct layer *l)
{
    const struct layer_rows *r = &l->rows;
    const struct kern_ctx *k = l->m->k;
    return share_n(&l->m->share) > 1 && l->n_rows >= k->limits.gather_rows && all_rows(&r->all) && all_rows(&r->finished) ? 2 : 1;
}

static struct dev_act *act_rows(const struct layer *l, const struct dev_act *p, int first, int cols)
{
    return dev_act_at(p, (size_t)first * (size_t)cols, dtype_size(l->m->k->act));
}

/* Part i of those that the layer's rows are computed in, all of which execute it. */
static struct layer part_of(const struct layer *l, int i)
{
    if (l->n_parts == 1)
        return *l;
    const struct model_config *c = &l->m->config;
    const struct share *s = &l->m->share;
    int first = l->n_rows / l->n_parts * i, heads = c->n_heads * l->heads.hd;
    struct layer part = *l;
    part.n_rows = i == l->n_parts - 1 ? l->n_rows - first : l->n_rows / l->n_parts;
    part.gate = l->gate ? dev_f32_at(l->gate, (size_t)first) : NULL;
    part.x = dev_f32_at(l->x, (size_t)first * (size_t)c->hidden);
    part.own_x = dev_f32_at(l->own_x, (size_t)first * (size_t)share_hidden(s, c));
    part.xn = act_rows(l, l->xn, first, c->hidden);
    part.qkv = act_rows(l, l->qkv, first, l->width);
    part.attn = act_rows(l, l->attn, first, heads);
    part.own_attn = act_rows(l, l->own_attn, first, heads / share_n(s));
    part.ffn = act_rows(l, l->ffn, first, c->ffn);
    part.own_ffn = act_rows(l, l->own_ffn, first, share_ffn(s, c));
    struct rows rows = {.n_max = part.n_rows};
    part.rows = (struct layer_rows){rows, rows, rows, rows, rows};
    return part;
}

static int await_gathers(const struct model *m, int but)
{
    return share_n(&m->share) > 1 ? m->k->backend->await_gathers(m->k, but) : 0;
}

/* What a rank has of every row, put together with what the others have: dst = all ranks' `cols` columns of src. Of a part, it is awaited later. */
static int gather(const struct layer *l, struct dev_bytes *dst, const struct dev_bytes *src, int cols, size_t size)
{
    const struct model *m = l->m;
    if (share_n(&m->share) == 1)
        return 0;
    int r = m->k->backend->all_gather(m->k, dst, src, (size_t)cols * size, l->n_rows);
    return r < 0 || l->n_parts > 1 ? r : await_gathers(m, 0);
}

/* A stage of each part in turn, once what the stage before it gathered of that part is there. gathers: this one starts a gather of its own for each part, so
 * that the newest is always another part's. */
static int in_parts(const struct layer *l, int (*stage)(const struct layer *part), bool gathers)
{
    int r = 0, last = l->n_parts - 1;
    for (int i = 0; i <= last && r >= 0; i++) {
        struct layer part = part_of(l, i);
        r = await_gathers(l->m, gathers ? last : last - i);
        if (r >= 0)
            r = stage(&part);
    }
    return r;
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

static bool has_few_rows(const struct layer *l)
{
    return l->n_rows <= l->m->k->limits.few_rows;
}

/* The rows that a projection is for; of few, all that could be read, which saves bringing those of a list together. */
static struct rows projected(const struct layer *l, const struct projection *p)
{
    if (has_few_rows(l))
        return l->rows.normed;
    return p->rows == ROWS_ATTENDING ? l->rows.attending : p->rows == ROWS_EXECUTED ? l->rows.executed : l->rows.all;
}

/* Whether there are two projections, of the same rows: Q and K, and V that takes the linear path as well. */
static bool projects_beside_bypass(const struct layer *l)
{
    return l->lw->n_proj == 2 && l->lw->proj[1].bypass && has_few_rows(l) && !forward_packs(l->p);
}

/* Norm and projections in one, where the backend has that for them and the rows: 1; 0: nothing was done. */
static int project_normed(const struct layer *l)
{
    const struct projection *p = l->lw->proj;
    struct kern_ctx *k = l->m->k;
    if (l->p->no_attn_norm || forward_packs(l->p))
        return 0;
    const struct kern_norm norm = {.x = l->x, .w = l->lw->attn_norm, .eps = l->m->config.rms_eps};
    if (l->lw->n_proj == 1 && k->ops->matmul_normed)
        return k->ops->matmul_normed(k, l->qkv, p->col, l->width, &norm, p->w, projected(l, p));
    if (projects_beside_bypass(l) && k->ops->matmul_with_bypass_normed)
        return k->ops->matmul_with_bypass_normed(k, &l->heads, l->own_attn, l->qkv, &norm, p[0].w, p[1].w, projected(l, p));
    return 0;
}

/* The projections of normed rows in one, likewise. */
static int project_both(const struct layer *l)
{
    const struct projection *p = l->lw->proj;
    struct kern_ctx *k = l->m->k;
    if (!k->ops->matmul_with_bypass || !projects_beside_bypass(l))
        return 0;
    return k->ops->matmul_with_bypass(k, &l->heads, l->own_attn, l->qkv, l->xn, p[0].w, p[1].w, l->m->config.hidden, projected(l, p));
}

static int attention_input(const struct layer *l)
{
    const struct model_config *c = &l->m->config;
    struct kern_ctx *k = l->m->k;
    if (forward_packs(l->p))
        return 0; /* forward_pack has done it */
    if (l->p->no_attn_norm)
        return k->ops->cast_rows(k, l->xn, l->x, l->rows.normed, c->hidden);
    return k->ops->rmsnorm(k, l->xn, NULL, l->x, l->lw->attn_norm, l->rows.normed, c->hidden, c->rms_eps);
}

/* How a layer turns q and k: where it has no positions, every row by the one row of a table that turns nothing. */
struct rotation {
    const struct dev_f32 *cos, *sin;
    struct kern_step step;
};

static struct rotation rotation_of(const struct layer *l)
{
    const struct model *m = l->m;
    struct rotation r = {m->rope_cos, m->rope_sin, l->step};
    if (l->p->no_rope) {
        r.cos = m->still_cos;
        r.sin = m->still_sin;
        r.step.pos = l->w->no_pos;
    }
    return r;
}

/* The projection of normed rows, all of which attend, with the rotation and the store behind it in one, likewise. */
static int project_turned(const struct layer *l)
{
    struct kern_ctx *k = l->m->k;
    const struct projection *p = l->lw->proj;
    struct rotation turn = rotation_of(l);
    if (!k->ops->matmul_rope_store || l->lw->n_proj != 1 || l->n_parts > 1 || !all_rows(&l->rows.attending) || l->p->qk_norm ||
        l->p->v_norm)
        return 0;
    return k->ops->matmul_rope_store(k, &l->heads, l->qkv, l->xn, p->w, l->m->config.hidden, turn.cos, turn.sin, &turn.step, l->place.slot);
}

/* Returns 1 if q was turned, and K and V were stored. */
static int project(const struct layer *l)
{
    struct kern_ctx *k = l->m->k;
    int d = l->m->config.hidden, r = project_normed(l);
    if (r)
        return r < 0 ? r : 0;
    r = attention_input(l);
    if (r >= 0)
        r = project_both(l);
    if (r)
        return r < 0 ? r : 0;
    r = project_turned(l);
    if (r)
        return r;
    for (int i = 0; r >= 0 && i < l->lw->n_proj; i++) {
        const struct projection *p = &l->lw->proj[i];
        struct rows of = projected(l, p);
        r = p->bypass ? k->ops->matmul_bypass(k, &l->heads, l->own_attn, l->qkv, l->xn, p->w, d, of)
                      : k->ops->matmul(k, l->qkv, p->col, l->width, l->xn, d, p->w, of);
    }
    return r;
}

/* Norms of heads, before the rotation; then the linear path's values, which the norm belongs to. */
static int norm_heads(const struct layer *l)
{
    const struct kern_heads *h = &l->heads;
    const struct {
        int heads;
        const struct dev_f32 *w;
        struct rows rows;
    } parts[] = {
        {h->h, l->lw->q_norm, l->rows.attending},
        {h->hk, l->lw->k_norm, l->rows.attending},
        {h->hk, l->lw->v_norm, l->rows.executed},
    };
    struct kern_ctx *k = l->m->k;
    int col = 0, hd = l->m->config.head_dim, r = 0;
    for (int i = 0; i < 3 && r >= 0; col += parts[i++].heads * h->hd)
        if (parts[i].w)
            r = k->ops->head_norm(k, l->qkv, col, l->width, parts[i].heads, h->hd, hd, parts[i].w, parts[i].rows, l->m->config.rms_eps);
    return r >= 0 && layer_has_linear(l->p) && l->p->v_norm ? k->ops->spread_values(k, h, l->own_attn, l->qkv, l->rows.executed) : r;
}

/* Rotates and stores K and V in the slots, unless that was done (turned), and attends. */
static int attend(const struct layer *l, bool turned)
{
    struct kern_ctx *k = l->m->k;
    struct rotation turn = rotation_of(l);
    float scale = 1.0f / sqrtf((float)l->m->config.head_dim);
    int r = 0;
    if (!turned && k->ops->rope_attention && !l->step.n_branches) /* whose first keys are not in the cache yet */
        r = k->ops->rope_attention(k, &l->heads, l->own_attn, l->qkv, turn.cos, turn.sin, &turn.step, l->index, &l->place,
                                   batch_layer_base(l->b, l->index), scale);
    if (r)
        return r;
    if (!turned)
        r = k->ops->rope_store(k, &l->heads, l->qkv, turn.cos, turn.sin, &turn.step, l->place.slot, l->rows.attending);
    return r < 0 ? r : k->ops->attention(k, &l->heads, l->own_attn, l->qkv, &l->step, l->index, &l->place, scale);
}

static int gather_heads(const struct layer *l)
{
    return gather(l, DEV_BYTES(l->attn), DEV_BYTES(l->own_attn), l->heads.h * l->heads.hd, dtype_size(l->m->k->act));
}

/* The layer's x[r] += gate[r] * W a[r]. a: [n, lda] */
static int add_product(const struct layer *l, const struct dev_act *a, int lda, const struct kern_matrix *w, const struct dev_f32 *gate)
{
    const struct share *s = &l->m->share;
    struct kern_ctx *k = l->m->k;
    int d = l->m->config.hidden, own = share_hidden(s, &l->m->config), r = 0;
    size_t bytes = (size_t)own * sizeof(float), ld = (size_t)d * sizeof(float);
    if (share_n(s) == 1)
        return k->ops->matmul_residual(k, l->x, a, lda, w, gate, l->rows.finished);
    if (!l->w->x_part_holds)
        r = k->backend->take_columns(k, DEV_BYTES(l->own_x), DEV_BYTES(l->x), (size_t)s->rank * bytes, bytes, ld, l->n_rows);
    if (r >= 0)
        r = k->ops->matmul_residual(k, l->own_x, a, lda, w, gate, l->rows.finished);
    return r < 0 ? r : gather(l, DEV_BYTES(l->x), DEV_BYTES(l->own_x), own, sizeof(float));
}

static int add_heads(const struct layer *l)
{
    return add_product(l, l->attn, l->m->config.n_heads * l->heads.hd, l->lw->o, l->gate);
}

/* Row lists and places by what was decided, for runs that branch too. */
static int place_decided(const struct layer *l)
{
    const struct batch *b = l->b;
    struct kern_ctx *k = l->m->k;
    bool keep_all = l->p->kv == KV_ALL;
    const struct dev_u8 *route = layer_is_routed(l->p) ? dev_u8_at(l->w->route, (size_t)l->index * (size_t)b->n_rows) : NULL,
                        *keyed = keep_all ? NULL : route;
    struct dev_i32 *base = batch_layer_base(b, l->index);
    int r = keyed && b->step.n_branches ? k->ops->branch_counts(k, &b->step, keyed, base) : 0;
    if (r >= 0)
        r = k->ops->place(k, &b->step, l->index, route, keep_all, base, batch_layer_reserved(b, l->index), &l->place);
    return r < 0 || !b->step.n_branches ? r : k->ops->branch_keys(k, &b->step, &l->index, 1, keyed, b->d_base);
}

/* Decisions, lists and places, and where the layer packs its rows, those and their norm. */
static int place_rows(const struct layer *l)
{
    const struct model *m = l->m;
    const struct batch *b = l->b;
    const struct layer_plan *p = l->p;
    int r = forward_router_place(m, l->w, b, l->index, &l->place);
    bool placed = l->placed || r > 0;
    if (r == 0)
        r = forward_router(m, l->w, b, l->index);
    if (r >= 0 && !placed)
        r = place_decided(l);
    if (r >= 0 && forward_packs(p) && !layer_is_nested(p)) /* a nested layer packs them for its second router */
        r = forward_pack(m, l->w, b, l->index);
    return r < 0 ? r : 0;
}

static int place_beside(void *layer)
{
    return place_rows(layer);
}

static int project_beside(void *layer)
{
    return project(layer);
}

/* Whether the projections need nothing of what the layer decides: they are then of all rows of the step, and turn none of them (project_turned). Both read x;
 * routers and place write w->router, decisions, gates, states and lists, the projections xn, qkv and attn. */
static bool projects_undecided(const struct layer *l)
{
    return layer_is_routed(l->p) && has_few_rows(l) && !forward_packs(l->p) && all_rows(&l->rows.normed);
}

/* Places the rows and projects them; returns as project(). With few rows a device has room for both at once. */
static int place_and_project(struct layer *l)
{
    struct kern_ctx *k = l->m->k;
    int r = layer_is_routed(l->p) ? await_gathers(l->m, 0) : 0; /* a router reads all rows */
    if (r < 0)
        return r;
    if (k->ops->beside && projects_undecided(l))
        return k->ops->beside(k, place_beside, project_beside, l);
    r = place_rows(l);
    if (r < 0)
        return r;
    return layer_is_routed(l->p) ? project(l) : in_parts(l, project, false);
}

/* x += o(attention of its input), or o(its own values) for executed rows that do not attend. */
static int attention_block(struct layer *l)
{
    int r = place_and_project(l);
    bool turned = r > 0;
    if (r >= 0 && (l->p->qk_norm || l->p->v_norm))
        r = norm_heads(l);
    if (r >= 0)
        r = attend(l, turned);
    if (r >= 0)
        r = in_parts(l, gather_heads, true);
    if (r >= 0)
        r = in_parts(l, add_heads, true);
    l->w->x_part_holds = true;
    return r;
}

/* ---- MLP -------------------------------------------------------------------------------------------------------- */

/* The layer's last product, and where it has a gate over all of it, what that does. */
static int add_down(const struct layer *l)
{
    const struct model_config *c = &l->m->config;
    bool packs = forward_packs(l->p);
    if (packs && share_n(&l->m->share) == 1)
        return forward_pack_product(l->m, l->w, l->b, l->index, l->ffn, c->ffn, l->lw->down);
    int r = add_product(l, l->ffn, c->ffn, l->lw->down, NULL);
    return r >= 0 && packs ? forward_pack_blend(l->m, l->w, l->b, l->index) : r;
}

/* silu(gate) * up of norm(x), which x becomes too where the MLP is added to it. */
static int gate_up(const struct layer *l)
{
    const struct model_config *c = &l->m->config;
    struct kern_ctx *k = l->m->k;
    const struct kern_norm norm = {.x = l->x, .w = l->lw->mlp_norm, .eps = c->rms_eps};
    int r = 0;
    if (k->ops->matmul_swiglu_normed && !l->p->mlp_from_norm)
        r = k->ops->matmul_swiglu_normed(k, l->own_ffn, &norm, l->lw->gate_up, l->rows.finished);
    if (r)
        return r;
    r = k->ops->rmsnorm(k, l->xn, l->p->mlp_from_norm ? l->x : NULL, l->x, l->lw->mlp_norm, l->rows.finished, c->hidden, c->rms_eps);
    return r < 0 ? r : k->ops->matmul_swiglu(k, l->own_ffn, l->xn, l->lw->gate_up, l->rows.finished);
}

static int gather_gate_up(const struct layer *l)
{
    int r = gate_up(l);
    return r < 0 ? r
                 : gather(l, DEV_BYTES(l->ffn), DEV_BYTES(l->own_ffn), share_ffn(&l->m->share, &l->m->config), dtype_size(l->m->k->act));
}

/* x = x + mlp(norm(x)), or norm(x) + mlp(norm(x)). */
static int mlp_block(const struct layer *l)
{
    int r = in_parts(l, gather_gate_up, true);
    if (l->p->mlp_from_norm)
        l->w->x_part_holds = false;
    if (r >= 0)
        r = in_parts(l, add_down, true);
    l->w->x_part_holds = !forward_packs(l->p);
    return r;
}

/* ---- a layer, and all of them ----------------------------------------------------------------------------------- */
/* The arrays that the layer works with. */
static void set_arrays(struct layer *l)
{
    struct workspace *w = l->w;
    l->x = forward_packs(l->p) ? w->packed_x : w->x;
    l->own_x = w->x_part;
    l->xn = w->xn;
    l->qkv = w->qkv;
    l->attn = w->attn;
    l->own_attn = w->attn_part ? w->attn_part : w->attn;
    l->ffn = w->ffn;
    l->own_ffn = w->ffn_part ? w->ffn_part : w->ffn;
}

/* The rows, lists and gates that the layer works with. */
static void set_rows(struct layer *l, bool last)
{
    struct workspace *w = l->w;
    bool packs = forward_packs(l->p);
    l->place = l->placed ? workspace_lists(w, l->index, l->b->n_rows) : forward_pack_place(w, l->p);
    l->place.again = l->placed && l->index && !layer_is_routed(l->p - 1);
    l->step = packs ? forward_pack_step(l->b, &l->place) : l->b->step;
    l->gate = l->p->attn_gate != GATE_CHOSEN ? NULL : packs ? l->place.packed.gate : w->gate;
    l->rows = divide_rows(l->p, w, l->b, last);
    l->n_rows = l->b->n_rows;
    l->n_parts = n_parts(l);
}

/* placed: the rows of unrouted layers were placed together. */
static int run_layer(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_memory *kv, int layer, bool placed)
{
    const struct layer_plan *p = &m->plan[layer];
    const struct model_config *c = &m->config;
    struct layer l = {.m = m, .w = w, .b = b, .p = p, .lw = &m->weights.layers[layer], .index = layer};
    l.heads = (struct kern_heads){
        .h = share_heads(&m->share, c), .hk = share_kv_heads(&m->share, c), .hd = model_config_padded_head_dim(c), .kv = kv->kv};
    l.width = (l.heads.h + 2 * l.heads.hk) * l.heads.hd;
    l.placed = placed && !layer_is_routed(p);
    set_arrays(&l);
    set_rows(&l, layer == c->n_layers - 1);
    if (forward_packs(p))
        w->x_part_holds = false; /* it held columns of x, and the layer adds to packed_x */
    int r = attention_block(&l);
    return r < 0 ? r : mlp_block(&l);
}

int forward_layer(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_memory *kv, int layer)
{
    return run_layer(m, w, b, kv, layer, false);
}

/* Where nothing decides, the places of all layers are known before the first: 1, or 0 if nothing was done. */
static int place_unrouted(const struct model *m, struct workspace *w, const struct batch *b)
{
    int layers[MODEL_MAX_LAYERS], n = 0;
    if (!m->k->ops->place_layers || !w->lists)
        return 0;
    for (int l = 0; l < m->config.n_layers; l++)
        if (!layer_is_routed(&m->plan[l]))
            layers[n++] = l;
    struct kern_place first = workspace_lists(w, 0, b->n_rows);
    if (!n)
        return 0;
    int r = m->k->ops->place_layers(m->k, &b->step, layers, n, b->d_base, b->d_reserved, b->n_append, &first,
                                    workspace_lists_stride(b->n_rows));
    if (r <= 0 || !b->step.n_branches)
        return r;
    r = m->k->ops->branch_keys(m->k, &b->step, layers, n, NULL, b->d_base);
    return r < 0 ? r : 1;
}

/* Keys of runs that follow the step before, where its routers tell: w->route holds what they decided until a router of this step is asked. */
static int follow(const struct model *m, struct workspace *w, const struct batch *b)
{
    bool told = false;
    for (int l = 0; l < m->config.n_layers && b->n_follow; l++)
        told |= layer_is_routed(&m->plan[l]) && m->plan[l].kv != KV_ALL;
    return told ? m->k->ops->follow(m->k, b->d_base, b->n_layers, b->n_runs, b->d_after, w->route) : 0;
}

int forward_embed(const struct model *m, struct workspace *w, const struct batch *b)
{
    w->x_part_holds = false;
    return m->k->ops->embed(m->k, w->x, m->weights.embed, b->d_ids, w->top_id, b->step.all);
}

int forward_layers(const struct model *m, struct workspace *w, const struct batch *b, const struct kv_memory *kv)
{
    int r = follow(m, w, b);
    bool placed = false;
    if (r >= 0)
        r = forward_embed(m, w, b);
    if (r >= 0)
        placed = (r = place_unrouted(m, w, b)) > 0;
    for (int l = 0; r >= 0 && l < m->config.n_layers; l++)
        r = run_layer(m, w, b, kv, l, placed);
    return r < 0 ? r : await_gathers(m, 0);
}
