#include "engine/tools/flops.h"
#include "engine/checkpoint/tensor_schema.h"

/* Tokens of a sequence that do each part of a layer. */
struct parts {
    double all, executed, attending;
    double keys; /* with K and V */
};

/* Multiply-adds of a router for one token. */
static double router_madds(const struct model_config *c, enum router router)
{
    const struct mamba_config *m = &c->mamba;
    double h = c->hidden, half = c->hidden / 2, r = m->dim, e = m->inner, n = m->d_state, rank = m->dt_rank;
    switch (router) {
    case ROUTER_MLP: return h * half + 2 * half;
    case ROUTER_MAMBA: return h * r + 2 * r * e + m->d_conv * e + e * (rank + 2 * n) + rank * e + 3 * e * n + e * r + 2 * r;
    case ROUTER_MOD: return 2 * h;
    case ROUTER_DLLM: return h * DLLM_ROUTER_DIM + 2.0 * DLLM_ROUTER_DIM;
    case ROUTER_NONE: break;
    }
    return 0;
}

/* An MLP router of an S layer is asked about executed tokens only; a Mamba router must see all of them. */
static double routers_madds(const struct model_config *c, const struct layer_plan *p, const struct parts *t)
{
    double asked = p->skip_router != ROUTER_NONE && p->router != ROUTER_MAMBA ? t->executed : t->all;
    return router_madds(c, p->skip_router) * t->all + router_madds(c, p->router) * asked;
}

static void add_layer(const struct model_config *c, const struct layer_plan *p, const struct parts *t, struct sequence_cost *sum)
{
    double h = c->hidden, q = (double)c->n_heads * c->head_dim, kv = (double)c->n_kv_heads * c->head_dim;
    bool keep_all = p->kv == KV_ALL;
    double n_v = keep_all ? t->all : t->executed, m = t->attending;
    sum->flops.vo += 2 * (n_v * h * kv + t->executed * q * h);
    sum->flops.qk += 2 * (m * h * q + t->keys * h * kv);
    sum->flops.mlp += 2 * t->executed * 3 * h * c->ffn;
    sum->flops.router += 2 * routers_madds(c, p, t);
    sum->flops.causal += 4 * q * m * (t->keys + 1) / 2;
    sum->flops.full += 4 * q * m * t->keys;
    sum->kv_rows += t->keys;
    sum->state_bytes += layer_n_states(p) * 4.0 * c->mamba.inner * (c->mamba.d_conv - 1 + c->mamba.d_state);
}

static struct parts parts_of(const struct layer_plan *p, double n, double executed, double attending)
{
    return (struct parts){.all = n, .executed = executed, .attending = attending, .keys = p->kv == KV_ALL ? n : attending};
}

static struct parts parts_at(const struct layer_plan *p, struct rates rates, double n)
{
    if (!layer_is_routed(p))
        return parts_of(p, n, n, n);
    double executed = p->skip_router != ROUTER_NONE ? rates.execute * n : layer_has_linear(p) ? n : rates.attend * n;
    return parts_of(p, n, executed, layer_has_linear(p) ? rates.attend * executed : executed);
}

void sequence_cost(const struct model_config *c, const struct layer_plan *plan, struct rates rates, double n, struct sequence_cost *ret)
{
    *ret = (struct sequence_cost){0};
    for (int l = 0; l < c->n_layers; l++) {
        struct parts t = parts_at(&plan[l], rates, n);
        add_layer(c, &plan[l], &t, ret);
    }
}

void sequence_cost_counted(const struct model_config *c, const struct layer_plan *plan, const int *attended, const int *executed, int n,
                           struct sequence_cost *ret)
{
    *ret = (struct sequence_cost){0};
    for (int l = 0; l < c->n_layers; l++) {
        int all = layer_can_skip(&plan[l]) ? attended[l] : n;
        struct parts t = parts_of(&plan[l], n, executed ? executed[l] : all, attended[l]);
        add_layer(c, &plan[l], &t, ret);
    }
}

void sequence_cost_dense(const struct model_config *c, double n, struct sequence_cost *ret)
{
    static const struct layer_plan dense = {0};
    const struct parts t = parts_of(&dense, n, n, n);
    *ret = (struct sequence_cost){0};
    for (int l = 0; l < c->n_layers; l++)
        add_layer(c, &dense, &t, ret);
}

static double without_scores(const struct flops *f)
{
    return f->vo + f->qk + f->mlp + f->router;
}

double flops_causal(const struct flops *f)
{
    return without_scores(f) + f->causal;
}

double flops_full(const struct flops *f)
{
    return without_scores(f) + f->full;
}

double flops_head(const struct model_config *c)
{
    return 2.0 * c->vocab * c->hidden;
}

void sequences_cost_add(struct sequences_cost *sum, const struct model_config *c, const struct layer_plan *plan, const int *attended,
                        const int *executed, int n)
{
    struct sequence_cost model, dense;
    sequence_cost_counted(c, plan, attended, executed, n, &model);
    sequence_cost_dense(c, n, &dense);
    sum->causal += flops_causal(&model.flops);
    sum->full += flops_full(&model.flops);
    sum->kv_rows += model.kv_rows;
    sum->dense_causal += flops_causal(&dense.flops);
    sum->dense_full += flops_full(&dense.flops);
    sum->dense_kv_rows += dense.kv_rows;
}
