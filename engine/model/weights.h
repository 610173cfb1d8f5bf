/* Weights bound to struct fields: the files are checked against the schema, values that are not finite are refused, and the
 * matrices are packed by the backend; afterwards the files can be unmapped. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/tensor_schema.h"
#include "engine/model/share.h"
#include "kernels/backend.h"

struct load_progress;

enum row_set { ROWS_ALL, ROWS_EXECUTED, ROWS_ATTENDING };

/* One matrix of the q/k/v projections; its output goes to columns col.. of the qkv buffer, for the rows that need it. */
struct projection {
    struct kern_matrix *w;
    int col;
    enum row_set rows;
    bool bypass; /* it gives V, and with it the linear path: attention then writes over its own rows */
};

/* A router. MLP: out silu(in x); D-LLM: with a norm between the two; MoD: out alone, the selecting row before the gating one. Mamba: whole. */
struct router_weights {
    struct kern_mamba *mamba;
    int state;                      /* number among the model's Mamba routers: layers ascending, in a nested layer the skip router first */
    struct kern_matrix *in;         /* [dim, hidden], MATRIX_ACCURATE, with bias */
    struct dev_f32 *norm;           /* f32 [dim] */
    struct dev_f32 *out, *out_bias; /* f32 [2, dim], [2] */
    int dim;
    struct dev_f32 *threshold; /* f32 [1], backend memory; NULL: none is stored */
};

struct layer_weights {
    struct dev_f32 *attn_norm, *mlp_norm;     /* f32 [hidden], LNS's scale in them; attn_norm NULL: attention reads x */
    struct dev_f32 *q_norm, *k_norm, *v_norm; /* f32 [padded head_dim], or NULL */
    /* everyone attends, MoD: {qkv, attending}; with a linear path: {qk, attending}, {v, executed}; D-LLM: {q, attending}, {kv, all} */
    struct projection proj[3];
    int n_proj;
    struct kern_matrix *o, *gate_up, *down;
    struct router_weights router, skip_router;
};

struct weights {
    struct kern_matrix *embed;    /* [vocab, hidden] */
    struct kern_matrix *head;     /* the same pointer if tied; else NULL in ranks but the first */
    struct dev_f32 *final_norm;   /* [hidden] */
    struct layer_weights *layers; /* [n_layers] */
    int n_layers;
    int n_states;     /* Mamba routers */
    size_t bytes;     /* in backend memory */
    int64_t n_params; /* as stored, tied embeddings counted once */
};

/* A layer that the plan forces dense is loaded without its router. share: the part that is loaded. progress (or NULL) counts layers. Errors name the
 * tensor. */
int weights_load(struct kern_ctx *k, const struct model_config *c, const struct layer_plan *plan, const struct safetensors *s,
                 const struct share *share, struct load_progress *progress, struct weights *ret, struct err *err);
/* Binds one router again, from files that have changed since. On error the router is lost. */
int weights_bind_router(struct kern_ctx *k, const struct model_config *c, struct schema_of of, const struct safetensors *s,
                        struct weights *w, struct err *err);
/* Copies from another device of the backend. On error *ret is half-made. */
int weights_copy(struct kern_ctx *k, struct kern_ctx *from, const struct model_config *c, const struct weights *w, struct weights *ret);
void weights_free(struct kern_ctx *k, struct weights *w);     /* copes with half-loaded */
enum dtype weights_stored_dtype(const struct safetensors *s); /* of the embedding */
