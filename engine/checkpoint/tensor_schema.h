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

enum tensor_role { ROLE_EMBEDDING, ROLE_NORM, ROLE_LINEAR, ROLE_BIAS, ROLE_ROUTER_NORM, ROLE_ROUTER_LINEAR, ROLE_ROUTER_BIAS };

/* Which part of it a rank of several would hold. OUT: rows, which are output columns of the product; IN: columns, whose products are
 * summed over ranks; HEADS and KV_HEADS: rows by head; IN_HEADS: columns by query head. */
enum slice { SLICE_NONE, SLICE_OUT, SLICE_IN, SLICE_HEADS, SLICE_KV_HEADS, SLICE_IN_HEADS };

/* A row of the schema as one layer of one model has it. */
struct tensor_spec {
    char name[128];
    enum schema_row row;
    enum tensor_role role; /* an untied lm_head is LINEAR */
    enum slice slice;
    int layer; /* -1: none */
    int n_dims;
    int64_t shape[3];
};

/* The tensor of `row` in layer `l` with record `p` (-1 and NULL for rows outside layers); false: that layer has none. */
bool schema_find(const struct model_config *c, const struct layer_plan *p, int l, enum schema_row row, struct tensor_spec *ret);

/* Calls fn for every tensor, embeddings first, then layer by layer; stops at and returns the first negative result. A layer forced
 * dense is listed as a dense one. */
int schema_walk(const struct model_config *c, const struct layer_plan *plan, int (*fn)(void *user, const struct tensor_spec *t),
                void *user);

bool schema_is_bias(enum schema_row row); /* of the matrix in the row before */
int64_t tensor_spec_elements(const struct tensor_spec *t);
