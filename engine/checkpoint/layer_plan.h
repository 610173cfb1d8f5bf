/* The model as data: one record a layer that says what the forward loop does there. An architecture is a way to fill
 * records, not an engine of its own. Filled from the config and the names of the tensors (golden sections 4, 6 to 8). */
#pragma once
#include "common/err.h"
#include "engine/checkpoint/model_config.h"
#include <stdbool.h>

struct safetensors;

enum layer_kind { LAYER_DENSE, LAYER_DTRNET, LAYER_MOD, LAYER_DLLM };

/* How far a selector sees. TOKEN: its own row only, so chunking and prefix reuse are exact. PREFIX_STATE: a recurrent state
 * of the prefix. SEQUENCE: the whole sequence, so neither. Every kind above is TOKEN; forward refuses the others by name. */
enum select_scope { SCOPE_TOKEN, SCOPE_PREFIX_STATE, SCOPE_SEQUENCE };

enum unselected { UNSELECTED_NONE, UNSELECTED_BYPASS /* linear path, then the MLP */, UNSELECTED_SKIP /* x unchanged */ };
enum layer_gate { GATE_NONE, GATE_ATTENTION /* scales o_proj's output */, GATE_LAYER /* x + g * layer(x) */ };

struct layer_plan {
    enum layer_kind kind; /* which router is asked; DENSE: none, every row is selected */
    enum select_scope scope;
    enum unselected unselected;
    enum layer_gate gate;
    bool kv_all;       /* unselected rows leave K and V too (D-LLM) */
    int forced;        /* first positions of a sequence that are always selected */
    bool forced_dense; /* a routed layer run ungated by dense_layers; its kind is then DENSE */
};

/* plan: [c->n_layers]. Errors: tensors that disagree with dtrnet_layers, a mix of families that is not published,
 * a layer that cannot be routed or made dense as `dense_layers` (NULL: none) asks. `dense_layers` is the whole list of layers to be
 * dense, as dtrnet_layers is: a layer that it leaves out must have a router. */
int layer_plan_fill(const struct model_config *c, const struct safetensors *s, const char *dense_layers, struct layer_plan *plan,
                    struct err *err);
/* The plan that a config describes when there are no tensors: DENSE, or the published layout of `family`; DTRNET needs dtrnet_layers. */
int layer_plan_derive(const struct model_config *c, enum layer_kind family, struct layer_plan *plan, struct err *err);
/* Applies `dense_layers` to a filled plan. */
int layer_plan_force_dense(const struct model_config *c, const char *dense_layers, struct layer_plan *plan, struct err *err);

const char *layer_kind_name(enum layer_kind k);                             /* "dense", "dtrnet", "mod", "dllm" */
int layer_kind_find(const char *name, enum layer_kind *ret);                /* ERR_INVALID for another name */
const char *layer_plan_family(const struct layer_plan *plan, int n_layers); /* the kind of its routed layers, else "dense" */
