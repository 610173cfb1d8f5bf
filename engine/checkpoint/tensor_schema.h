/* The one list of tensors: names, shapes and uses. The loader binds by it, files are checked against it, inspect counts by it, synth
 * writes by it. A row says when it is present in terms of the config and of a layer's axes. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include <stdint.h>

/* A matrix X has its bias in row X_BIAS, the next one. */
enum schema_row {
    SCHEMA_EMBED,
    SCHEMA_MLP_ROUTER_IN,
    SCHEMA_MLP_ROUTER_IN_BIAS,
    SCHEMA_MLP_ROUTER_OUT,
    SCHEMA_MLP_ROUTER_OUT_BIAS,
    SCHEMA_MAMBA_IN,
    SCHEMA_MAMBA_IN_BIAS,
    SCHEMA_MAMBA_NORM,
    SCHEMA_MAMBA_MIXER_IN,
    SCHEMA_MAMBA_CONV,
    SCHEMA_MAMBA_CONV_BIAS,
    SCHEMA_MAMBA_X,
    SCHEMA_MAMBA_DT,
    SCHEMA_MAMBA_DT_BIAS,
    SCHEMA_MAMBA_A_LOG,
    SCHEMA_MAMBA_D,
    SCHEMA_MAMBA_MIXER_OUT,
    SCHEMA_MAMBA_OUT,
    SCHEMA_MAMBA_OUT_BIAS,
    SCHEMA_THRESHOLD,
    SCHEMA_MOD_GATE,
    SCHEMA_MOD_GATE_BIAS,
    SCHEMA_MOD_SELECT,
    SCHEMA_MOD_SELECT_BIAS,
    SCHEMA_DLLM_ROUTER_IN,
    SCHEMA_DLLM_ROUTER_IN_BIAS,
    SCHEMA_DLLM_ROUTER_NORM,
    SCHEMA_DLLM_ROUTER_OUT,
    SCHEMA_DLLM_ROUTER_OUT_BIAS,
    SCHEMA_ATTN_NORM,
    SCHEMA_Q,
    SCHEMA_Q_BIAS,
    SCHEMA_K,
    SCHEMA_K_BIAS,
    SCHEMA_V,
    SCHEMA_V_BIAS,
    SCHEMA_Q_NORM,
    SCHEMA_K_NORM,
    SCHEMA_V_NORM,
    SCHEMA_O,
    SCHEMA_O_BIAS,
    SCHEMA_MLP_NORM,
    SCHEMA_GATE,
    SCHEMA_GATE_BIAS,
    SCHEMA_UP,
    SCHEMA_UP_BIAS,
    SCHEMA_DOWN,
    SCHEMA_DOWN_BIAS,
    SCHEMA_FINAL_NORM,
    SCHEMA_HEAD,
    SCHEMA_ROWS
};

#define DLLM_ROUTER_DIM 512 /* fixed in the published module */

/* What its values are like: how synth draws them, and what inspect counts as a router's. */
enum tensor_role {
    ROLE_EMBEDDING,
    ROLE_NORM,
    ROLE_LINEAR, /* an untied lm_head too */
    ROLE_BIAS,
    ROLE_ROUTER_NORM, /* from here on a router's */
    ROLE_ROUTER_LINEAR,
    ROLE_ROUTER_BIAS,
    ROLE_ROUTER_DT_BIAS, /* of a step size before softplus */
    ROLE_ROUTER_A_LOG,   /* log of the decay rates */
    ROLE_ROUTER_D,       /* the share of the input that passes by the state */
    ROLE_ROUTER_THRESHOLD,
};

/* Which rows of it a rank of several holds (engine/model/share.h): all; an equal part, which are output columns of the product, so that no sum
 * crosses ranks; those of its query heads; those of its KV heads. */
enum slice { SLICE_NONE, SLICE_OUT, SLICE_HEADS, SLICE_KV_HEADS };

/* Whether a dimension consists of heads, and how kernels lay a head out: HALVES as rotation pairs its values; IN: the columns, plain; else the rows, or
 * the only dimension. */
enum head_layout { HEADS_NONE, HEADS_PLAIN, HEADS_HALVES, HEADS_IN };

/* A row of the schema as one layer of one model has it. */
struct tensor_spec {
    char name[128];
    enum schema_row row;
    enum tensor_role role;
    enum slice slice;
    enum head_layout heads;
    bool wide; /* written as F32 whatever the checkpoint's dtype is; a reader takes what is stored */
    int layer; /* -1: none */
    int n_dims;
    int64_t shape[3];
};

/* Whose row: a layer with its record, and which of its two routers. Rows outside layers need none of it: {.layer = -1}. */
struct schema_of {
    int layer;
    const struct layer_plan *plan;
    bool skip; /* rows of routers: skip_router's, else router's */
};

/* The tensor that `row` is there; false: there is none. */
bool schema_find(const struct model_config *c, struct schema_of of, enum schema_row row, struct tensor_spec *ret);

/* Calls fn for every tensor, embeddings first, then layer by layer; stops at and returns the first negative result. A layer forced
 * dense is listed as a dense one. */
int schema_walk(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t),
                void *user);

bool schema_is_bias(enum schema_row row); /* of the matrix in the row before */
int64_t tensor_spec_elements(const struct tensor_spec *t);
