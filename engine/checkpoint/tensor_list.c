#include "engine/checkpoint/tensor_list.h"
#include <stdio.h>

struct walk {
    int (*fn)(void *user, const struct tensor_spec *t);
    void *user;
    char prefix[64];
    int layer;
    int r; /* first negative result; later calls do nothing */
};

int64_t tensor_spec_elements(const struct tensor_spec *t)
{
    return t->rows * (t->cols ? t->cols : 1);
}

static void one(struct walk *w, const char *tail, enum tensor_role role, int64_t rows, int64_t cols)
{
    struct tensor_spec t = {.role = role, .layer = w->layer, .rows = rows, .cols = cols};
    if (w->r < 0)
        return;
    snprintf(t.name, sizeof(t.name), "%s%s", w->prefix, tail);
    w->r = w->fn(w->user, &t);
}

static void linear(struct walk *w, const char *stem, int64_t rows, int64_t cols, bool bias)
{
    char tail[64];
    snprintf(tail, sizeof(tail), "%s.weight", stem);
    one(w, tail, ROLE_LINEAR, rows, cols);
    snprintf(tail, sizeof(tail), "%s.bias", stem);
    if (bias)
        one(w, tail, ROLE_BIAS, rows, 0);
}

static void router_linear(struct walk *w, const char *stem, int64_t rows, int64_t cols)
{
    char tail[64];
    snprintf(tail, sizeof(tail), "%s.weight", stem);
    one(w, tail, ROLE_ROUTER_LINEAR, rows, cols);
    snprintf(tail, sizeof(tail), "%s.bias", stem);
    one(w, tail, ROLE_ROUTER_BIAS, rows, 0);
}

static void routers(struct walk *w, enum router kind, int64_t hidden)
{
    switch (kind) {
    case ROUTER_MLP:
        router_linear(w, "router.weight_predictor.0", hidden / 2, hidden);
        router_linear(w, "router.weight_predictor.2", 2, hidden / 2);
        break;
    case ROUTER_MOD:
        router_linear(w, "router.weight_predictor", 1, hidden);
        router_linear(w, "aux_router.predictor", 1, hidden);
        break;
    case ROUTER_DLLM:
        router_linear(w, "router.linear_1", 512, hidden);
        one(w, "router.norm.weight", ROLE_ROUTER_NORM, 512, 0);
        router_linear(w, "router.linear_2", 2, 512);
        break;
    case ROUTER_NONE: break;
    }
}

static void block(struct walk *w, const struct model_config *c)
{
    int64_t q = (int64_t)c->n_heads * c->head_dim, kv = (int64_t)c->n_kv_heads * c->head_dim;
    one(w, "input_layernorm.weight", ROLE_NORM, c->hidden, 0);
    linear(w, "self_attn.q_proj", q, c->hidden, c->attention_bias);
    linear(w, "self_attn.k_proj", kv, c->hidden, c->attention_bias);
    linear(w, "self_attn.v_proj", kv, c->hidden, c->attention_bias);
    linear(w, "self_attn.o_proj", c->hidden, q, c->attention_bias);
    one(w, "post_attention_layernorm.weight", ROLE_NORM, c->hidden, 0);
    linear(w, "mlp.gate_proj", c->ffn, c->hidden, c->mlp_bias);
    linear(w, "mlp.up_proj", c->ffn, c->hidden, c->mlp_bias);
    linear(w, "mlp.down_proj", c->hidden, c->ffn, c->mlp_bias);
}

int tensor_list(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t), void *user)
{
    struct walk w = {.fn = fn, .user = user, .layer = -1};
    one(&w, "model.embed_tokens.weight", ROLE_EMBEDDING, c->vocab, c->hidden);
    for (int l = 0; l < c->n_layers; l++) {
        w.layer = l;
        snprintf(w.prefix, sizeof(w.prefix), "model.layers.%d.", l);
        routers(&w, plan[l].router, c->hidden);
        snprintf(w.prefix, sizeof(w.prefix), "model.layers.%d.%s", l, plan[l].expert1 ? "expert1." : "");
        block(&w, c);
    }
    w.layer = -1;
    w.prefix[0] = '\0';
    one(&w, "model.norm.weight", ROLE_NORM, c->hidden, 0);
    if (!c->tied)
        one(&w, "lm_head.weight", ROLE_LINEAR, c->vocab, c->hidden);
    return w.r;
}
