/* Weights bound to struct fields: every tensor's name, dtype and shape is checked, values that are not finite are refused, and the
 * matrices are packed by the backend; afterwards the files can be unmapped. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"
#include "kernels/backend.h"

enum row_set { ROWS_ALL, ROWS_SELECTED };

/* One matrix of the q/k/v projections; its output goes to columns col.. of the qkv buffer, for the rows that need it. */
struct projection {
    struct kern_matrix *w;
    int col;
    enum row_set rows;
    bool bypass; /* it gives V, and with it the linear path: attention then writes over its own rows */
};

struct layer_weights {
    struct dev_f32 *attn_norm, *mlp_norm; /* [hidden] */
    /* dense, MoD: {qkv, selected}; DTRNet: {qk, selected}, {v, all, bypass}; D-LLM: {q, selected}, {kv, all} */
    struct projection proj[3];
    int n_proj;
    struct kern_matrix *o, *gate_up, *down;
    struct kern_matrix *router_in;   /* DTRNet: [hidden/2, hidden]; D-LLM: [512, hidden]; MATRIX_ACCURATE, with bias; else NULL */
    struct dev_f32 *router_norm;     /* D-LLM: [512] */
    struct dev_f32 *router_out;      /* DTRNet [2, hidden/2]; D-LLM [2, 512]; MoD [2, hidden]: aux router, router */
    struct dev_f32 *router_out_bias; /* [2] */
    int router_dim;                  /* columns of router_out */
};

struct weights {
    struct kern_matrix *embed;    /* [vocab, hidden] */
    struct kern_matrix *head;     /* the same pointer if tied */
    struct dev_f32 *final_norm;   /* [hidden] */
    struct layer_weights *layers; /* [n_layers] */
    int n_layers;
    size_t bytes;     /* in backend memory */
    int64_t n_params; /* as stored, tied embeddings counted once */
};

/* A layer that the plan forces dense is loaded without its router. Tensors that nothing uses are an error naming the first
 * (rotary_emb.inv_freq buffers of old saves and a tied lm_head.weight are ignored). */
int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 struct weights *ret, struct err *err);
void weights_free(struct kern_ctx *k, struct weights *w);     /* copes with half-loaded */
enum dtype weights_stored_dtype(const struct safetensors *s); /* of the embedding */
