/* The model as data: one record a layer that says, axis by axis, what the forward loop does there. An architecture is a way to fill
 * records, not an engine of its own. Filled from the config and the names of the tensors. */
#pragma once
#include "common/err.h"
#include "engine/checkpoint/model_config.h"
#include "kernels/decision.h"
#include <stdbool.h>

struct safetensors;

/* Which router is asked. MLP: silu MLP on the residual stream (DTRNet). MOD and DLLM: the routers of those models. */
enum router { ROUTER_NONE, ROUTER_MLP, ROUTER_MOD, ROUTER_DLLM };

/* How its answer becomes a decision. */
enum decide {
    DECIDE_HALF,           /* p > 0.5 */
    DECIDE_HALF_INCLUSIVE, /* p >= 0.5 (D-LLM) */
};

/* Where its probability multiplies. */
enum gate {
    GATE_NONE,
    GATE_CHOSEN, /* o's output, by the probability of the way that was taken: p0 or p1 */
    GATE_ADD,    /* the whole layer: x + g * layer(x) */
};

/* Whose K and V are kept. */
enum kv_keep { KV_ALL, KV_ATTENDING };

/* How far a selector sees. TOKEN: its own row only, so chunking and prefix reuse are exact. PREFIX_STATE: a recurrent state
 * of the prefix. SEQUENCE: the whole sequence, so neither. */
enum select_scope { SCOPE_TOKEN, SCOPE_PREFIX_STATE, SCOPE_SEQUENCE };

/* A record of zeros is a dense layer: no router, every row attends, all K and V are kept. */
struct layer_plan {
    enum router router; /* decides who attends */
    enum decide decide;
    enum decision below, above;      /* what the router's two outcomes mean */
    enum gate attn_gate, layer_gate; /* on o's output; on the whole layer */
    enum kv_keep kv;
    enum select_scope scope;
    int forced;        /* first positions of a sequence that attend whatever the router says */
    bool forced_dense; /* a routed layer run ungated by --dense-layers: every other field is then a dense layer's */
    bool expert1;      /* the block's tensors stand under "expert1." (MoD) */
};

static inline bool layer_is_routed(const struct layer_plan *p)
{
    return p->router != ROUTER_NONE;
}

/* Rows that do not attend are not executed. */
static inline bool layer_can_skip(const struct layer_plan *p)
{
    return layer_is_routed(p) && p->below == DECISION_SKIP;
}

/* Rows that do not attend take the linear path. */
static inline bool layer_has_linear(const struct layer_plan *p)
{
    return layer_is_routed(p) && p->below == DECISION_LINEAR;
}

/* How to read a checkpoint whose tensors are not there. */
enum family { FAMILY_DENSE, FAMILY_DTRNET, FAMILY_MOD, FAMILY_DLLM };

/* plan: [c->n_layers]. Errors: tensors that disagree with dtrnet_layers, a mix of families that is not published,
 * a layer that cannot be routed or made dense as `dense_layers` (NULL: none) asks. `dense_layers` is the whole list of layers to be
 * dense, as dtrnet_layers is: a layer that it leaves out must have a router. */
int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err);
/* The plan that a config describes when there are no tensors: DENSE, or the published layout of `family`; DTRNET needs dtrnet_layers. */
int layer_plan_derive(const struct model_config *c, enum family family, struct layer_plan *plan, struct err *err);
/* Applies `dense_layers` to a filled plan. */
int layer_plan_force_dense(const struct model_config *c, const char *dense_layers, struct layer_plan *plan, struct err *err);

/* Names for people: nothing else is decided by them. */
int layer_plan_find_family(const char *name, enum family *ret);             /* "dense", "dtrnet", "mod", "dllm"; else ERR_INVALID */
const char *layer_plan_kind(const struct layer_plan *p);                    /* of one layer: "dense", "dtrnet", "mod", "dllm" */
const char *layer_plan_family(const struct layer_plan *plan, int n_layers); /* the kind of its routed layers, else "dense" */
