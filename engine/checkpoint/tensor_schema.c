/* Shapes are written in the letters of the config:
 *   V vocabulary   H hidden   F ffn   Q heads x head_dim   K KV heads x head_dim   M floor(H/2)
 * with a number alone for a fixed size. */
#include "engine/checkpoint/tensor_schema.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Where a name stands. */
enum place {
    PLACE_HEAD,   /* before all layers */
    PLACE_TAIL,   /* after them */
    PLACE_ROUTER, /* model.layers.N., in layers with one kind of router */
    PLACE_BLOCK,  /* model.layers.N. or, in MoD's routed layers, model.layers.N.expert1. */
};

struct row {
    const char *name, *shape;
    enum tensor_role role;
    enum slice slice;
    enum place place;
    enum router router;                            /* PLACE_ROUTER */
    bool (*present)(const struct model_config *c); /* NULL: always */
};

static bool untied(const struct model_config *c)
{
    return !c->tied;
}

static bool attention_bias(const struct model_config *c)
{
    return c->attention_bias;
}

static bool mlp_bias(const struct model_config *c)
{
    return c->mlp_bias;
}

#define BLOCK_LINEAR(id, stem, out, in, how, bias_how, bias_if)                  \
    [id] = {stem ".weight", out "," in, ROLE_LINEAR, how, PLACE_BLOCK, 0, NULL}, \
    [id##_BIAS] = {stem ".bias", out, ROLE_BIAS, bias_how, PLACE_BLOCK, 0, bias_if}
#define ROUTER_LINEAR(id, kind, stem, out, in)                                                     \
    [id] = {stem ".weight", out "," in, ROLE_ROUTER_LINEAR, SLICE_NONE, PLACE_ROUTER, kind, NULL}, \
    [id##_BIAS] = {stem ".bias", out, ROLE_ROUTER_BIAS, SLICE_NONE, PLACE_ROUTER, kind, NULL}
#define BLOCK_NORM(id, name) [id] = {name, "H", ROLE_NORM, SLICE_NONE, PLACE_BLOCK, 0, NULL}

static const struct row rows[SCHEMA_ROWS] = {
    [SCHEMA_EMBED] = {"model.embed_tokens.weight", "V,H", ROLE_EMBEDDING, SLICE_NONE, PLACE_HEAD, 0, NULL},
    ROUTER_LINEAR(SCHEMA_MLP_ROUTER_IN, ROUTER_MLP, "router.weight_predictor.0", "M", "H"),
    ROUTER_LINEAR(SCHEMA_MLP_ROUTER_OUT, ROUTER_MLP, "router.weight_predictor.2", "2", "M"),
    ROUTER_LINEAR(SCHEMA_MOD_GATE, ROUTER_MOD, "router.weight_predictor", "1", "H"),
    ROUTER_LINEAR(SCHEMA_MOD_SELECT, ROUTER_MOD, "aux_router.predictor", "1", "H"),
    ROUTER_LINEAR(SCHEMA_DLLM_ROUTER_IN, ROUTER_DLLM, "router.linear_1", "512", "H"),
    [SCHEMA_DLLM_ROUTER_NORM] = {"router.norm.weight", "512", ROLE_ROUTER_NORM, SLICE_NONE, PLACE_ROUTER, ROUTER_DLLM, NULL},
    ROUTER_LINEAR(SCHEMA_DLLM_ROUTER_OUT, ROUTER_DLLM, "router.linear_2", "2", "512"),
    BLOCK_NORM(SCHEMA_ATTN_NORM, "input_layernorm.weight"),
    BLOCK_LINEAR(SCHEMA_Q, "self_attn.q_proj", "Q", "H", SLICE_HEADS, SLICE_HEADS, attention_bias),
    BLOCK_LINEAR(SCHEMA_K, "self_attn.k_proj", "K", "H", SLICE_KV_HEADS, SLICE_KV_HEADS, attention_bias),
    BLOCK_LINEAR(SCHEMA_V, "self_attn.v_proj", "K", "H", SLICE_KV_HEADS, SLICE_KV_HEADS, attention_bias),
    BLOCK_LINEAR(SCHEMA_O, "self_attn.o_proj", "H", "Q", SLICE_IN_HEADS, SLICE_NONE, attention_bias),
    BLOCK_NORM(SCHEMA_MLP_NORM, "post_attention_layernorm.weight"),
    BLOCK_LINEAR(SCHEMA_GATE, "mlp.gate_proj", "F", "H", SLICE_OUT, SLICE_OUT, mlp_bias),
    BLOCK_LINEAR(SCHEMA_UP, "mlp.up_proj", "F", "H", SLICE_OUT, SLICE_OUT, mlp_bias),
    BLOCK_LINEAR(SCHEMA_DOWN, "mlp.down_proj", "H", "F", SLICE_IN, SLICE_NONE, mlp_bias),
    [SCHEMA_FINAL_NORM] = {"model.norm.weight", "H", ROLE_NORM, SLICE_NONE, PLACE_TAIL, 0, NULL},
    [SCHEMA_HEAD] = {"lm_head.weight", "V,H", ROLE_LINEAR, SLICE_OUT, PLACE_TAIL, 0, untied},
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
    case 'M': return c->hidden / 2;
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

static bool is_present(const struct model_config *c, const struct layer_plan *p, const struct row *row)
{
    if (row->place == PLACE_ROUTER && p->router != row->router)
        return false;
    return !row->present || row->present(c);
}

static void write_name(const struct row *row, const struct layer_plan *p, int l, char *name, size_t size)
{
    if (row->place == PLACE_HEAD || row->place == PLACE_TAIL)
        snprintf(name, size, "%s", row->name);
    else
        snprintf(name, size, "model.layers.%d.%s%s", l, row->place == PLACE_BLOCK && p->expert1 ? "expert1." : "", row->name);
}

bool schema_find(const struct model_config *c, const struct layer_plan *p, int l, enum schema_row id, struct tensor_spec *ret)
{
    const struct row *row = &rows[id];
    if (!is_present(c, p, row))
        return false;
    *ret = (struct tensor_spec){.row = id, .role = row->role, .slice = row->slice, .layer = l};
    write_name(row, p, l, ret->name, sizeof(ret->name));
    read_shape(c, row->shape, ret);
    return true;
}

/* The rows of places first..last, in the order of the table. */
static int walk_places(const struct model_config *c, const struct layer_plan *p, int l, enum place first, enum place last,
                       int (*fn)(void *user, const struct tensor_spec *t), void *user)
{
    int r = 0;
    struct tensor_spec t;
    for (int id = 0; id < SCHEMA_ROWS && r >= 0; id++)
        if (rows[id].place >= first && rows[id].place <= last && schema_find(c, p, l, (enum schema_row)id, &t))
            r = fn(user, &t);
    return r;
}

int schema_walk(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t), void *user)
{
    int r = walk_places(c, NULL, -1, PLACE_HEAD, PLACE_HEAD, fn, user);
    for (int l = 0; l < c->n_layers && r >= 0; l++)
        r = walk_places(c, &plan[l], l, PLACE_ROUTER, PLACE_BLOCK, fn, user);
    return r >= 0 ? walk_places(c, NULL, -1, PLACE_TAIL, PLACE_TAIL, fn, user) : r;
}
