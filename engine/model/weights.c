/* Which tensors make which fields of struct weights. What no field asked for would be silently ignored weights, and is refused. */
#include "engine/model/weights.h"
#include "engine/model/binder.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DLLM_ROUTER_DIM 512

/* ---- a layer -------------------------------------------------------------------------------------------------- */

static int bind_projection(struct binder *b, struct layer_weights *lw, const struct part_spec *parts, int n_parts, int col,
                           enum row_set rows)
{
    struct projection *p = &lw->proj[lw->n_proj];
    p->col = col;
    p->rows = rows;
    lw->n_proj++;
    return binder_matrix(b, MATRIX_LINEAR, parts, n_parts, b->c->hidden, &p->w);
}

/* Which projections go together follows from which rows need them. */
static int bind_qkv(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    const struct model_config *c = b->c;
    int q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const struct part_spec parts[3] = {
        {"self_attn.q_proj", q, c->attention_bias},
        {"self_attn.k_proj", kv, c->attention_bias},
        {"self_attn.v_proj", kv, c->attention_bias},
    };
    int n_first = p->unselected == UNSELECTED_BYPASS ? 2 : p->kv_all ? 1 : 3;
    int r = bind_projection(b, lw, parts, n_first, 0, ROWS_SELECTED);
    if (r < 0 || n_first == 3)
        return r;
    lw->proj[lw->n_proj].bypass = p->unselected == UNSELECTED_BYPASS;
    return bind_projection(b, lw, parts + n_first, 3 - n_first, n_first == 1 ? q : q + kv, ROWS_ALL);
}

static int bind_block(struct binder *b, const struct layer_plan *p, struct layer_weights *lw)
{
    const struct model_config *c = b->c;
    char name[128];
    snprintf(name, sizeof(name), "%sinput_layernorm.weight", b->prefix);
    int r = binder_vector(b, name, c->hidden, &lw->attn_norm);
    snprintf(name, sizeof(name), "%spost_attention_layernorm.weight", b->prefix);
    if (r >= 0)
        r = binder_vector(b, name, c->hidden, &lw->mlp_norm);
    if (r >= 0)
        r = bind_qkv(b, p, lw);
    if (r >= 0)
        r = binder_matrix(b, MATRIX_LINEAR, &(struct part_spec){"self_attn.o_proj", c->hidden, c->attention_bias}, 1,
                          (int64_t)c->n_heads * c->head_dim, &lw->o);
    const struct part_spec gate_up[2] = {{"mlp.gate_proj", c->ffn, c->mlp_bias}, {"mlp.up_proj", c->ffn, c->mlp_bias}};
    if (r >= 0)
        r = binder_matrix(b, MATRIX_GATE_UP, gate_up, 2, c->hidden, &lw->gate_up);
    if (r >= 0)
        r = binder_matrix(b, MATRIX_LINEAR, &(struct part_spec){"mlp.down_proj", c->hidden, c->mlp_bias}, 1, c->ffn, &lw->down);
    return r;
}

/* The two output rows of a router and their biases: stems[i] + ".weight" [rows, cols] and ".bias" [rows]. */
static int bind_router_out(struct binder *b, const char *const *stems, int n, int64_t rows, int64_t cols, struct layer_weights *lw)
{
    char weight[2][128], bias[2][128];
    const char *weights[2] = {weight[0], weight[1]}, *biases[2] = {bias[0], bias[1]};
    for (int i = 0; i < n; i++) {
        snprintf(weight[i], sizeof(weight[i]), "%s%s.weight", b->prefix, stems[i]);
        snprintf(bias[i], sizeof(bias[i]), "%s%s.bias", b->prefix, stems[i]);
    }
    lw->router_dim = (int)cols;
    int r = binder_stacked(b, weights, n, rows, cols, &lw->router_out);
    return r >= 0 ? binder_stacked(b, biases, n, rows, 0, &lw->router_out_bias) : r;
}

static int bind_dtrnet_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = {"router.weight_predictor.2"};
    int64_t m = b->c->hidden / 2;
    int r = binder_matrix(b, MATRIX_ACCURATE, &(struct part_spec){"router.weight_predictor.0", m, true}, 1, b->c->hidden, &lw->router_in);
    return r >= 0 ? bind_router_out(b, out, 1, 2, m, lw) : r;
}

static int bind_mod_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = {"aux_router.predictor", "router.weight_predictor"};
    return bind_router_out(b, out, 2, 1, b->c->hidden, lw);
}

static int bind_dllm_router(struct binder *b, struct layer_weights *lw)
{
    static const char *const out[] = {"router.linear_2"};
    char name[128];
    snprintf(name, sizeof(name), "%srouter.norm.weight", b->prefix);
    int r = binder_vector(b, name, DLLM_ROUTER_DIM, &lw->router_norm);
    if (r >= 0)
        r = binder_matrix(b, MATRIX_ACCURATE, &(struct part_spec){"router.linear_1", DLLM_ROUTER_DIM, true}, 1, b->c->hidden,
                          &lw->router_in);
    return r >= 0 ? bind_router_out(b, out, 1, 2, DLLM_ROUTER_DIM, lw) : r;
}

static int bind_router(struct binder *b, enum layer_kind kind, struct layer_weights *lw)
{
    switch (kind) {
    case LAYER_DTRNET: return bind_dtrnet_router(b, lw);
    case LAYER_MOD: return bind_mod_router(b, lw);
    case LAYER_DLLM: return bind_dllm_router(b, lw);
    default: return 0;
    }
}

/* MoD keeps the block of a routed layer, also of one forced dense, under "expert1.". */
static bool has_expert(struct binder *b, int l)
{
    char name[128];
    snprintf(name, sizeof(name), "model.layers.%d.expert1.input_layernorm.weight", l);
    return safetensors_find(b->s, name) != NULL;
}

static int bind_layer(struct binder *b, int l, const struct layer_plan *p, struct layer_weights *lw)
{
    bool expert = p->kind == LAYER_MOD || (p->forced_dense && has_expert(b, l));
    snprintf(b->prefix, sizeof(b->prefix), "model.layers.%d.", l);
    int r = bind_router(b, p->kind, lw);
    snprintf(b->prefix, sizeof(b->prefix), "model.layers.%d.%s", l, expert ? "expert1." : "");
    return r >= 0 ? bind_block(b, p, lw) : r;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static int bind_ends(struct binder *b, struct weights *w)
{
    const struct model_config *c = b->c;
    b->prefix[0] = '\0';
    int r = binder_matrix(b, MATRIX_EMBED, &(struct part_spec){"model.embed_tokens", c->vocab, false}, 1, c->hidden, &w->embed);
    if (r >= 0 && c->tied)
        w->head = w->embed;
    else if (r >= 0)
        r = binder_matrix(b, MATRIX_LINEAR, &(struct part_spec){"lm_head", c->vocab, false}, 1, c->hidden, &w->head);
    return r >= 0 ? binder_vector(b, "model.norm.weight", c->hidden, &w->final_norm) : r;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The router of a layer that runs dense by --dense-layers. */
static bool is_dropped_router(const struct model_config *c, const struct layer_plan *plan, const char *name)
{
    int l = -1, at = 0;
    if (sscanf(name, "model.layers.%d.%n", &l, &at) != 1 || !at || l < 0 || l >= c->n_layers || !plan[l].forced_dense)
        return false;
    return !strncmp(name + at, "router.", 7) || !strncmp(name + at, "aux_router.", 11);
}

/* Counts what is stored and refuses what nothing uses. */
static int check_unused(struct binder *b, const struct layer_plan *plan, int64_t *n_params)
{
    for (size_t i = 0; i < safetensors_count(b->s); i++) {
        const struct tensor *t = safetensors_at(b->s, i);
        if (!b->used[i] && (ends_with(t->name, ".rotary_emb.inv_freq") || (b->c->tied && !strcmp(t->name, "lm_head.weight"))))
            continue;
        if (!b->used[i] && !is_dropped_router(b->c, plan, t->name))
            return err_set(b->err, ERR_CORRUPT, "tensor %s belongs to nothing that this model's config describes", t->name);
        *n_params += tensor_elements(t);
    }
    return 0;
}

static int bind_all(struct binder *b, const struct layer_plan *plan, struct weights *w)
{
    w->n_layers = b->c->n_layers;
    w->layers = calloc((size_t)w->n_layers, sizeof(*w->layers));
    b->used = calloc(safetensors_count(b->s) + 1, sizeof(*b->used));
    if (!w->layers || !b->used)
        return err_set(b->err, ERR_NOMEM, "no memory for the list of weights");
    int r = bind_ends(b, w);
    for (int l = 0; l < w->n_layers && r >= 0; l++)
        r = bind_layer(b, l, &plan[l], &w->layers[l]);
    return r >= 0 ? check_unused(b, plan, &w->n_params) : r;
}

int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 struct weights *ret, struct err *err)
{
    struct weights w = {0};
    struct binder b = {.k = k, .c = c, .s = s, .err = err};
    int r = bind_all(&b, plan, &w);
    w.bytes = b.bytes;
    free(b.used);
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
        (void)binder_dtype(embed, &t, NULL);
    return t;
}
