#include "engine/tools/flops.h"
#include "engine/checkpoint/tensor_schema.h"

/* Multiply-adds of a layer's parts for one token that takes part. */
struct parts {
    double q, k, v, o, mlp;
    double key; /* attention, for each visible key */
};

static struct parts layer_parts(const struct model_config *c)
{
    double h = c->hidden, q = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
    return (struct parts){.q = h * q, .k = h * kv, .v = h * kv, .o = q * h, .mlp = 3.0 * h * c->ffn, .key = 2 * q};
}

static double router_madds(const struct model_config *c, enum router router)
{
    double h = c->hidden, half = c->hidden / 2;
    switch (router) {
    case ROUTER_MLP: return h * half + 2 * half;
    case ROUTER_MOD: return 2 * h;
    case ROUTER_DLLM: return h * DLLM_ROUTER_DIM + 2.0 * DLLM_ROUTER_DIM;
    default: return 0;
    }
}

/* Share of tokens that do each part of a layer. */
struct shares {
    double selected; /* q and attention */
    double kv;       /* k, and rows in the cache */
    double v, o, mlp;
};

static struct shares layer_shares(const struct layer_plan *p, double rate)
{
    double r = layer_is_routed(p) ? rate : 1;
    bool skip = layer_can_skip(p), kv_all = p->kv == KV_ALL;
    struct shares s = {.selected = r, .kv = kv_all ? 1 : r, .o = skip ? r : 1, .mlp = skip ? r : 1};
    s.v = skip && !kv_all ? r : 1;
    return s;
}

static void add_layer(const struct model_config *c, const struct layer_plan *p, double rate, int context, struct token_cost *sum)
{
    struct parts w = layer_parts(c);
    struct shares s = layer_shares(p, rate);
    double fixed = s.selected * w.q + s.kv * w.k + s.v * w.v + s.o * w.o + s.mlp * w.mlp + router_madds(c, p->router);
    double attention = s.selected * s.kv * context * w.key; /* the keys that there are, seen by the tokens that look */
    sum->causal += 2 * (fixed + attention / 2);
    sum->full += 2 * (fixed + attention);
    sum->kv_rows += s.kv;
}

void token_cost(const struct model_config *c, const struct layer_plan *plan, double route_rate, int context, struct token_cost *ret)
{
    *ret = (struct token_cost){.head = 2.0 * c->vocab * c->hidden};
    for (int l = 0; l < c->n_layers; l++)
        add_layer(c, &plan[l], route_rate, context, ret);
}

void token_cost_dense(const struct model_config *c, int context, struct token_cost *ret)
{
    static const struct layer_plan dense = {0};
    *ret = (struct token_cost){.head = 2.0 * c->vocab * c->hidden};
    for (int l = 0; l < c->n_layers; l++)
        add_layer(c, &dense, 1, context, ret);
}

void sequences_cost_add(struct sequences_cost *sum, const struct model_config *c, const struct layer_plan *plan, const int *rows_routed,
                        int n)
{
    struct token_cost model = {0}, dense;
    for (int l = 0; l < c->n_layers && n > 0; l++)
        add_layer(c, &plan[l], (double)rows_routed[l] / n, n, &model);
    token_cost_dense(c, n, &dense);
    sum->causal += n * model.causal;
    sum->full += n * model.full;
    sum->kv_rows += n * model.kv_rows;
    sum->dense_causal += n * dense.causal;
    sum->dense_full += n * dense.full;
    sum->dense_kv_rows += n * dense.kv_rows;
}
