/* Shapes are written in letters of the config, with a number before a letter for a multiple and alone for a fixed size:
 *   V vocabulary   H hidden   F ffn   Q heads x head_dim   K KV heads x head_dim   d head_dim   M floor(H/2)
 *   of Mamba routers: r width   E inner width   N state   C convolution   R rank of dt   X R + 2N */
#include "engine/checkpoint/tensor_schema.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Where a name stands. */
enum place {
    PLACE_HEAD,       /* before all layers */
    PLACE_ROUTER,     /* model.layers.N.router. or .skip_router., in layers with this kind of router */
    PLACE_AUX_ROUTER, /* model.layers.N.aux_router. */
    PLACE_BLOCK,      /* model.layers.N. or, in MoD's routed layers, model.layers.N.expert1. */
    PLACE_TAIL,       /* after all layers */
};

struct row {
    const char *name, *shape;
    enum tensor_role role;
    enum slice slice;
    enum head_layout heads;
    enum place place;
    enum router router; /* places of routers: which kind has it; NONE: MLP and Mamba */
    bool wide;
    bool (*present)(const struct model_config *c, const struct layer_plan *p); /* NULL: always */
};

static bool untied(const struct model_config *c, const struct layer_plan *p)
{
    return !c->tied;
}

static bool qkv_bias(const struct model_config *c, const struct layer_plan *p)
{
    return c->qkv_bias;
}

static bool o_bias(const struct model_config *c, const struct layer_plan *p)
{
    return c->o_bias;
}

static bool mlp_bias(const struct model_config *c, const struct layer_plan *p)
{
    return c->mlp_bias;
}

static bool attn_norm(const struct model_config *c, const struct layer_plan *p)
{
    return !p->no_attn_norm;
}

static bool qk_norm(const struct model_config *c, const struct layer_plan *p)
{
    return p->qk_norm;
}

static bool v_norm(const struct model_config *c, const struct layer_plan *p)
{
    return p->v_norm;
}

static bool has_threshold(const struct model_config *c, const struct layer_plan *p)
{
    return p->has_threshold;
}

#define NORM(id, at, name_, shape_, if_) [id] = {.name = name_, .shape = shape_, .role = ROLE_NORM, .place = at, .present = if_}
#define HEAD_NORM(id, name_, layout, if_) \
    [id] = {.name = name_, .shape = "d", .role = ROLE_NORM, .heads = layout, .place = PLACE_BLOCK, .present = if_}
#define WEIGHT(id, name_, shape_, how, layout) \
    [id] = {.name = name_, .shape = shape_, .role = ROLE_LINEAR, .slice = how, .heads = layout, .place = PLACE_BLOCK}
#define BIAS(id, name_, shape_, how, layout, if_) \
    [id] = {.name = name_, .shape = shape_, .role = ROLE_BIAS, .slice = how, .heads = layout, .place = PLACE_BLOCK, .present = if_}
#define HEADS(id, stem, out, how, layout) \
    WEIGHT(id, stem ".weight", out ",H", how, layout), BIAS(id##_BIAS, stem ".bias", out, how, layout, qkv_bias)
#define MLP(id, stem, out, in) \
    WEIGHT(id, stem ".weight", out "," in, SLICE_OUT, HEADS_NONE), BIAS(id##_BIAS, stem ".bias", out, SLICE_OUT, HEADS_NONE, mlp_bias)
/* Routers are small: every rank holds them whole. */
#define ROUTER(id, kind, name_, shape_, role_) [id] = {.name = name_, .shape = shape_, .role = role_, .place = PLACE_ROUTER, .router = kind}
#define ROUTER_WIDE(id, kind, name_, shape_, role_) \
    [id] = {.name = name_, .shape = shape_, .role = role_, .place = PLACE_ROUTER, .router = kind, .wide = true}
#define ROUTER_LINEAR(id, kind, at, stem, out, in)                                                                 \
    [id] = {.name = stem ".weight", .shape = out "," in, .role = ROLE_ROUTER_LINEAR, .place = at, .router = kind}, \
    [id##_BIAS] = {.name = stem ".bias", .shape = out, .role = ROLE_ROUTER_BIAS, .place = at, .router = kind}

static const struct row rows[SCHEMA_ROWS] = {
    [SCHEMA_EMBED] = {.name = "model.embed_tokens.weight", .shape = "V,H", .role = ROLE_EMBEDDING, .place = PLACE_HEAD},

    ROUTER_LINEAR(SCHEMA_MLP_ROUTER_IN, ROUTER_MLP, PLACE_ROUTER, "weight_predictor.0", "M", "H"),
    ROUTER_LINEAR(SCHEMA_MLP_ROUTER_OUT, ROUTER_MLP, PLACE_ROUTER, "weight_predictor.2", "2", "M"),

    ROUTER_LINEAR(SCHEMA_MAMBA_IN, ROUTER_MAMBA, PLACE_ROUTER, "in_proj", "r", "H"),
    ROUTER(SCHEMA_MAMBA_NORM, ROUTER_MAMBA, "norm.weight", "r", ROLE_ROUTER_NORM),
    ROUTER(SCHEMA_MAMBA_MIXER_IN, ROUTER_MAMBA, "mixer.in_proj.weight", "2E,r", ROLE_ROUTER_LINEAR),
    ROUTER(SCHEMA_MAMBA_CONV, ROUTER_MAMBA, "mixer.conv1d.weight", "E,1,C", ROLE_ROUTER_LINEAR),
    ROUTER(SCHEMA_MAMBA_CONV_BIAS, ROUTER_MAMBA, "mixer.conv1d.bias", "E", ROLE_ROUTER_BIAS),
    ROUTER(SCHEMA_MAMBA_X, ROUTER_MAMBA, "mixer.x_proj.weight", "X,E", ROLE_ROUTER_LINEAR),
    ROUTER(SCHEMA_MAMBA_DT, ROUTER_MAMBA, "mixer.dt_proj.weight", "E,R", ROLE_ROUTER_LINEAR),
    ROUTER_WIDE(SCHEMA_MAMBA_DT_BIAS, ROUTER_MAMBA, "mixer.dt_proj.bias", "E", ROLE_ROUTER_DT_BIAS),
    ROUTER_WIDE(SCHEMA_MAMBA_A_LOG, ROUTER_MAMBA, "mixer.A_log", "E,N", ROLE_ROUTER_A_LOG),
    ROUTER_WIDE(SCHEMA_MAMBA_D, ROUTER_MAMBA, "mixer.D", "E", ROLE_ROUTER_D),
    ROUTER(SCHEMA_MAMBA_MIXER_OUT, ROUTER_MAMBA, "mixer.out_proj.weight", "r,E", ROLE_ROUTER_LINEAR),
    ROUTER_LINEAR(SCHEMA_MAMBA_OUT, ROUTER_MAMBA, PLACE_ROUTER, "out_proj", "2", "r"),

    [SCHEMA_THRESHOLD] =
        {.name = "threshold", .shape = "1", .role = ROLE_ROUTER_THRESHOLD, .place = PLACE_ROUTER, .wide = true, .present = has_threshold},

    ROUTER_LINEAR(SCHEMA_MOD_GATE, ROUTER_MOD, PLACE_ROUTER, "weight_predictor", "1", "H"),
    ROUTER_LINEAR(SCHEMA_MOD_SELECT, ROUTER_MOD, PLACE_AUX_ROUTER, "predictor", "1", "H"),

    ROUTER_LINEAR(SCHEMA_DLLM_ROUTER_IN, ROUTER_DLLM, PLACE_ROUTER, "linear_1", "512", "H"),
    ROUTER(SCHEMA_DLLM_ROUTER_NORM, ROUTER_DLLM, "norm.weight", "512", ROLE_ROUTER_NORM),
    ROUTER_LINEAR(SCHEMA_DLLM_ROUTER_OUT, ROUTER_DLLM, PLACE_ROUTER, "linear_2", "2", "512"),

    NORM(SCHEMA_ATTN_NORM, PLACE_BLOCK, "input_layernorm.weight", "H", attn_norm),
    HEADS(SCHEMA_Q, "self_attn.q_proj", "Q", SLICE_HEADS, HEADS_HALVES),
    HEADS(SCHEMA_K, "self_attn.k_proj", "K", SLICE_KV_HEADS, HEADS_HALVES),
    HEADS(SCHEMA_V, "self_attn.v_proj", "K", SLICE_KV_HEADS, HEADS_PLAIN),
    HEAD_NORM(SCHEMA_Q_NORM, "self_attn.q_norm.weight", HEADS_HALVES, qk_norm),
    HEAD_NORM(SCHEMA_K_NORM, "self_attn.k_norm.weight", HEADS_HALVES, qk_norm),
    HEAD_NORM(SCHEMA_V_NORM, "self_attn.v_norm.weight", HEADS_PLAIN, v_norm),
    WEIGHT(SCHEMA_O, "self_attn.o_proj.weight", "H,Q", SLICE_OUT, HEADS_IN),
    BIAS(SCHEMA_O_BIAS, "self_attn.o_proj.bias", "H", SLICE_OUT, HEADS_NONE, o_bias),
    NORM(SCHEMA_MLP_NORM, PLACE_BLOCK, "post_attention_layernorm.weight", "H", NULL),
    MLP(SCHEMA_GATE, "mlp.gate_proj", "F", "H"),
    MLP(SCHEMA_UP, "mlp.up_proj", "F", "H"),
    MLP(SCHEMA_DOWN, "mlp.down_proj", "H", "F"),

    NORM(SCHEMA_FINAL_NORM, PLACE_TAIL, "model.norm.weight", "H", NULL),
    [SCHEMA_HEAD] = {.name = "lm_head.weight", .shape = "V,H", .role = ROLE_LINEAR, .place = PLACE_TAIL, .present = untied},
};

bool schema_is_bias(enum schema_row row)
{
    return rows[row].role == ROLE_BIAS || rows[row].role == ROLE_ROUTER_BIAS;
}

int64_t tensor_spec_elements(const struct tensor_spec *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    return n;
}

static int64_t size_of(const struct model_config *c, char letter)
{
    switch (letter) {
    case 'V': return c->vocab;
    case 'H': return c->hidden;
    case 'F': return c->ffn;
    case 'Q': return (int64_t)c->n_heads * c->head_dim;
    case 'K': return (int64_t)c->n_kv_heads * c->head_dim;
    case 'd': return c->head_dim;
    case 'M': return c->hidden / 2;
    case 'r': return c->mamba.dim;
    case 'E': return c->mamba.inner;
    case 'N': return c->mamba.d_state;
    case 'C': return c->mamba.d_conv;
    case 'R': return c->mamba.dt_rank;
    case 'X': return c->mamba.dt_rank + 2 * c->mamba.d_state;
    default: assert(!"a letter of the schema"); return 0;
    }
}

static void read_shape(const struct model_config *c, const char *shape, struct tensor_spec *ret)
{
    ret->n_dims = 0;
    for (const char *p = shape; *p; p += *p == ',') {
        int64_t n = 1;
        if (*p >= '0' && *p <= '9')
            n = strtol(p, (char **)&p, 10);
        if (*p && *p != ',')
            n *= size_of(c, *p++);
        ret->shape[ret->n_dims++] = n;
    }
}

static bool is_present(const struct model_config *c, struct schema_of of, const struct row *row)
{
    if (row->place == PLACE_ROUTER || row->place == PLACE_AUX_ROUTER) {
        enum router kind = of.skip ? of.plan->skip_router : of.plan->router;
        bool ours = row->router == ROUTER_NONE ? kind == ROUTER_MLP || kind == ROUTER_MAMBA : kind == row->router;
        if (!ours)
            return false;
    }
    return !row->present || row->present(c, of.plan);
}

static void write_name(const struct row *row, struct schema_of of, char *name, size_t size)
{
    const char *under = "";
    switch (row->place) {
    case PLACE_HEAD:
    case PLACE_TAIL: snprintf(name, size, "%s", row->name); return;
    case PLACE_ROUTER: under = of.skip ? "skip_router." : "router."; break;
    case PLACE_AUX_ROUTER: under = "aux_router."; break;
    case PLACE_BLOCK: under = of.plan->expert1 ? "expert1." : ""; break;
    }
    snprintf(name, size, "model.layers.%d.%s%s", of.layer, under, row->name);
}

bool schema_find(const struct model_config *c, struct schema_of of, enum schema_row id, struct tensor_spec *ret)
{
    const struct row *row = &rows[id];
    if (!is_present(c, of, row))
        return false;
    *ret =
        (struct tensor_spec){.row = id, .role = row->role, .slice = row->slice, .heads = row->heads, .wide = row->wide, .layer = of.layer};
    write_name(row, of, ret->name, sizeof(ret->name));
    read_shape(c, row->shape, ret);
    return true;
}

/* The rows of places first..last, in the order of the table. */
static int walk_places(const struct model_config *c, struct schema_of of, enum place first, enum place last,
                       int (*fn)(void *user, const struct tensor_spec *t), void *user)
{
    int r = 0;
    struct tensor_spec t;
    for (int id = 0; id < SCHEMA_ROWS && r >= 0; id++)
        if (rows[id].place >= first && rows[id].place <= last && schema_find(c, of, (enum schema_row)id, &t))
            r = fn(user, &t);
    return r;
}

static int walk_layer(const struct model_config *c, const struct layer_plan *p, int l, int (*fn)(void *user, const struct tensor_spec *t),
                      void *user)
{
    int r = walk_places(c, (struct schema_of){l, p, true}, PLACE_ROUTER, PLACE_ROUTER, fn, user);
    return r >= 0 ? walk_places(c, (struct schema_of){l, p, false}, PLACE_ROUTER, PLACE_BLOCK, fn, user) : r;
}

int schema_walk(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t), void *user)
{
    const struct schema_of none = {.layer = -1};
    int r = walk_places(c, none, PLACE_HEAD, PLACE_HEAD, fn, user);
    for (int l = 0; l < c->n_layers && r >= 0; l++)
        r = walk_layer(c, &plan[l], l, fn, user);
    return r >= 0 ? walk_places(c, none, PLACE_TAIL, PLACE_TAIL, fn, user) : r;
}
