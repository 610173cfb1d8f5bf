/* The model as data: one record a layer that says, axis by axis, what the forward loop does there. An architecture is a way to fill
 * records, not an engine of its own. Filled from the config and the names of the tensors. */
#pragma once
#include "common/err.h"
#include "engine/checkpoint/model_config.h"
#include "kernels/decision.h"
#include <stdbool.h>

struct safetensors;

/* Which router is asked. MLP: silu MLP on the residual stream (DTRNet). MAMBA: a selective scan over the sequence, with a state. MOD and
 * DLLM: the routers of those models. */
enum router { ROUTER_NONE, ROUTER_MLP, ROUTER_MAMBA, ROUTER_MOD, ROUTER_DLLM };

/* How its answer becomes a decision. */
enum decide {
    DECIDE_HALF,           /* p > 0.5 */
    DECIDE_HALF_INCLUSIVE, /* p >= 0.5 (D-LLM) */
    DECIDE_THRESHOLD,      /* margin > the stored threshold */
    DECIDE_TOP,            /* among the largest margins of the sequence: expert choice, exact */
};

/* Where its probability multiplies. */
enum gate {
    GATE_NONE,
    GATE_CHOSEN,  /* o's output, by the probability of the way that was taken: p0 or p1 */
    GATE_ADD,     /* the whole layer: x + g * layer(x) */
    GATE_TOWARDS, /* the whole layer: x + g * (layer(x) - x), g the skip router's p0 */
};

/* Whose K and V are kept. */
enum kv_keep { KV_ALL, KV_ATTENDING };

/* How far a selector sees. TOKEN: its own row only, so chunking and prefix reuse are exact. PREFIX_STATE: a recurrent state
 * of the prefix. SEQUENCE: the whole sequence, so neither. */
enum select_scope { SCOPE_TOKEN, SCOPE_PREFIX_STATE, SCOPE_SEQUENCE };

/* A record of zeros is a dense layer with pre-norms: no router, every row attends, all K and V are kept, q and k are rotated. */
struct layer_plan {
    enum router router;         /* decides who attends */
    enum router skip_router;    /* asked first: who executes the layer at all; NONE: everyone */
    enum decide decide;         /* of both */
    enum decision below, above; /* what `router`'s outcomes mean for an executed row */
    enum gate attn_gate, layer_gate;
    enum kv_keep kv;
    enum select_scope scope;
    int forced;                          /* first positions of a sequence that attend whatever the router says */
    double attn_capacity, exec_capacity; /* DECIDE_TOP: shares that attend (of those that execute) and that execute */
    bool has_threshold;                  /* the thresholds of its routers are stored */
    /* norms */
    bool no_attn_norm;  /* attention reads x itself (HybridNorm) */
    bool qk_norm;       /* heads of q and k are normed before the rotation (HybridNorm, Qwen3) */
    bool v_norm;        /* heads of v are normed (HybridNorm) */
    bool mlp_from_norm; /* the MLP's residual is its normed input (HybridNorm) */
    float norm_scale;   /* LNS: of both pre-norms; 0 stands for 1 */
    bool no_rope;       /* q and k are not rotated (SmolLM3) */
    /* where it came from */
    bool forced_dense; /* a routed layer run ungated by dense_layers: its routing axes are then a dense layer's */
    bool expert1;      /* the block's tensors stand under "expert1." (MoD) */
};

static inline bool layer_is_routed(const struct layer_plan *p)
{
    return p->router != ROUTER_NONE;
}

/* Some rows may not be executed. */
static inline bool layer_can_skip(const struct layer_plan *p)
{
    return layer_is_routed(p) && (p->below == DECISION_SKIP || p->skip_router != ROUTER_NONE);
}

/* A router of its own decides who executes it, before another decides who attends. */
static inline bool layer_is_nested(const struct layer_plan *p)
{
    return p->skip_router != ROUTER_NONE;
}

/* Executed rows that do not attend take the linear path. */
static inline bool layer_has_linear(const struct layer_plan *p)
{
    return layer_is_routed(p) && p->below == DECISION_LINEAR;
}

/* Routers of the layer that keep a state of the sequence; in an S layer the skip router's comes first. */
static inline int layer_n_states(const struct layer_plan *p)
{
    return (p->skip_router == ROUTER_MAMBA) + (p->router == ROUTER_MAMBA);
}

/* How to read a checkpoint whose tensors are not there. DTRNET: by layer_layout or dtrnet_layers, so UltraDeep's too. */
enum family { FAMILY_DENSE, FAMILY_DTRNET, FAMILY_MOD, FAMILY_DLLM };

/* plan: [c->n_layers]. Errors: tensors that disagree with dtrnet_layers, a mix of families that is not published, keys that do not go
 * with a family, thresholds that are needed and not stored, a layer that cannot be routed or made dense as `dense_layers` (NULL: none)
 * asks. `dense_layers` is the whole list of layers to be dense, as dtrnet_layers is: a layer that it leaves out must have a router.
 * Whether a layer_layout agrees with the tensors is tensor_match's to say. */
int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err);
/* The plan that a config describes when there are no tensors: DENSE, or the published layout of `family`; DTRNET needs dtrnet_layers or
 * layer_layout. With expert choice the routers are taken to have thresholds. */
int layer_plan_derive(const struct model_config *c, enum family family, struct layer_plan *plan, struct err *err);
enum family layer_plan_default_family(const struct model_config *c); /* DTRNET if the config says which layers are routed, else DENSE */
/* Applies `dense_layers` to a filled plan. */
int layer_plan_force_dense(const struct model_config *c, const char *dense_layers, struct layer_plan *plan, struct err *err);

/* Names for people: nothing else is decided by them. */
int layer_plan_find_family(const char *name, enum family *ret);             /* "dense", "dtrnet", "mod", "dllm"; else ERR_INVALID */
const char *layer_plan_kind(const struct layer_plan *p);                    /* one layer: "dense", "dtrnet", "nested", "mod", "dllm" */
const char *layer_plan_family(const struct layer_plan *plan, int n_layers); /* "dense", "dtrnet", "mod", "dllm" or "ultradeep" */
