#include "engine/checkpoint/layer_record.h"
#include <math.h>
#include <string.h>

/* A routed layer of each family. */
static const struct layer_plan records[] = {
    [FAMILY_DENSE] = {0},
    [FAMILY_DTRNET] =
        {.router = ROUTER_MLP, .below = DECISION_LINEAR, .above = DECISION_ATTEND, .attn_gate = GATE_CHOSEN, .kv = KV_ATTENDING},
    [FAMILY_MOD] = {.router = ROUTER_MOD,
                    .below = DECISION_SKIP,
                    .above = DECISION_ATTEND,
                    .layer_gate = GATE_ADD,
                    .kv = KV_ATTENDING,
                    .expert1 = true},
    [FAMILY_DLLM] = {.router = ROUTER_DLLM,
                     .decide = DECIDE_HALF_INCLUSIVE,
                     .below = DECISION_SKIP,
                     .above = DECISION_ATTEND,
                     .kv = KV_ALL,
                     .forced = 2},
};

bool layer_record_is_routed(const struct model_config *c, enum family family, int l)
{
    switch (family) {
    case FAMILY_DTRNET: return !model_config_is_dense(c, l);
    case FAMILY_MOD: return l % 2 == 1;
    case FAMILY_DLLM: return l >= 2;
    case FAMILY_DENSE: break;
    }
    return false;
}

/* LNS scales both pre-norms of layer l, counted from 0 over all layers. HybridNorm norms q, k and v in place of attention's input and takes
 * the MLP's residual after its norm; HybridNorm* keeps pre-norms and the plain residual in layer 0. */
static void set_norms(const struct model_config *c, int l, struct layer_plan *p)
{
    bool hybrid = c->norm_method == NORM_METHOD_HYBRID || c->norm_method == NORM_METHOD_HYBRID_STAR;
    bool plain_first = c->norm_method == NORM_METHOD_HYBRID_STAR && l == 0;
    if (c->norm_method == NORM_METHOD_LNS)
        p->norm_scale = (float)(1 / sqrt(l + 1.0));
    p->qk_norm = hybrid || c->qk_norm;
    p->v_norm = hybrid;
    p->no_attn_norm = p->mlp_from_norm = hybrid && !plain_first;
}

/* D and S layers: which routers, and how they decide. */
static void set_routing(const struct model_config *c, int l, bool has_thresholds, struct layer_plan *p)
{
    bool exact = c->expert_choice && c->expert_inference == EXPERT_EXACT, mamba = c->router_type == ROUTER_TYPE_MAMBA;
    bool nested = c->layout[l] == 'S';
    p->router = mamba ? ROUTER_MAMBA : ROUTER_MLP;
    p->skip_router = nested ? p->router : ROUTER_NONE;
    p->layer_gate = nested ? GATE_TOWARDS : GATE_NONE;
    p->decide = !c->expert_choice ? DECIDE_HALF : exact ? DECIDE_TOP : DECIDE_THRESHOLD;
    p->scope = exact ? SCOPE_SEQUENCE : mamba ? SCOPE_PREFIX_STATE : SCOPE_TOKEN;
    p->has_threshold = has_thresholds;
    if (exact) {
        p->attn_capacity = c->attn_capacity;
        p->exec_capacity = nested ? c->exec_capacity : 0;
    }
}

struct layer_plan layer_record(const struct model_config *c, enum family family, int l, bool has_thresholds)
{
    bool routed = layer_record_is_routed(c, family, l);
    struct layer_plan p = records[routed ? family : FAMILY_DENSE];
    if (routed && family == FAMILY_DTRNET)
        set_routing(c, l, has_thresholds, &p);
    set_norms(c, l, &p);
    p.no_rope = c->no_rope[l];
    return p;
}

struct layer_plan layer_record_dense(const struct layer_plan *p)
{
    return (struct layer_plan){.forced_dense = true,
                               .expert1 = p->expert1,
                               .no_attn_norm = p->no_attn_norm,
                               .qk_norm = p->qk_norm,
                               .v_norm = p->v_norm,
                               .mlp_from_norm = p->mlp_from_norm,
                               .norm_scale = p->norm_scale,
                               .no_rope = p->no_rope};
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

static const char *const family_names[] = {"dense", "dtrnet", "mod", "dllm"};

int layer_plan_find_family(const char *name, enum family *ret)
{
    for (int f = FAMILY_DENSE; f <= FAMILY_DLLM; f++)
        if (!strcmp(name, family_names[f])) {
            *ret = (enum family)f;
            return 0;
        }
    return ERR_INVALID;
}

const char *layer_plan_kind(const struct layer_plan *p)
{
    switch (p->router) {
    case ROUTER_MLP:
    case ROUTER_MAMBA: return p->skip_router != ROUTER_NONE ? "nested" : "dtrnet";
    case ROUTER_MOD: return "mod";
    case ROUTER_DLLM: return "dllm";
    case ROUTER_NONE: break;
    }
    return "dense";
}

/* What the published families do not have. */
static bool is_ultradeep(const struct layer_plan *p)
{
    bool routing = p->skip_router != ROUTER_NONE || p->router == ROUTER_MAMBA || p->decide == DECIDE_THRESHOLD || p->decide == DECIDE_TOP;
    return routing || p->v_norm || p->norm_scale != 0;
}

const char *layer_plan_family(const struct layer_plan *plan, int n_layers)
{
    const char *name = "dense";
    for (int l = 0; l < n_layers; l++) {
        if (is_ultradeep(&plan[l]))
            return "ultradeep";
        if (layer_is_routed(&plan[l]))
            name = layer_plan_kind(&plan[l]);
    }
    return name;
}
