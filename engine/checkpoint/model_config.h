/* config.json of a checkpoint, read strictly: hyper-parameters, RoPE, ids, and the command line's overrides.
 * Any key that could change the arithmetic and is not implemented is refused by name (docs/architectures.md). */
#pragma once
#include "common/err.h"
#include "common/json.h"
#include "common/log.h"
#include "engine/checkpoint/model_type.h"
#include "kernels/dtype.h"
#include "kernels/mamba.h"
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

/* Effective values: what the frequencies are computed from, after rope_config.c's rules and the overrides. */
struct rope_config {
    enum rope_type type;
    double theta;
    double factor;                            /* linear, llama3, yarn: the effective one */
    double original_length;                   /* llama3, yarn */
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn: multiplies cos and sin; 1 otherwise */
};

struct model_overrides {
    const char *rope_scaling;  /* JSON object; here `factor` counts and original length defaults to max_position_embeddings; or NULL */
    const char *dense_layers;  /* "0,2,4", "all", "none" or NULL; applied by layer_plan */
    int bos_id, eos_id;        /* -1: keep */
    const char *expert_choice; /* "exact" or "threshold" in place of expert_choice_inference, or NULL */
    const char
        *rope_factor; /* YaRN with both lengths takes config.json's factor ("config") or their ratio ("ratio"); NULL: by rope_config.h */
    const char *accept_keys; /* "a,b": keys of config.json that the user vouches for: read as if they were not there; or NULL */
};

#define MODEL_MAX_LAYERS 1024
#define MODEL_MAX_EOS 16
#define MODEL_MAX_HEAD_DIM 256

enum router_type { ROUTER_TYPE_MLP, ROUTER_TYPE_MAMBA };
enum norm_method { NORM_METHOD_NONE, NORM_METHOD_LNS, NORM_METHOD_HYBRID, NORM_METHOD_HYBRID_STAR };
enum expert_inference { EXPERT_EXACT, EXPERT_THRESHOLD };

/* Sizes of every Mamba router of the model. */
struct mamba_config {
    int dim;     /* r */
    int inner;   /* E = router_expand * r */
    int d_state; /* N */
    int d_conv;  /* C */
    int dt_rank; /* R */
};

struct model_config {
    int hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab;
    float rms_eps;
    enum model_type type;
    bool tied, qkv_bias, o_bias, mlp_bias;
    bool qk_norm;                   /* heads of q and k are normed before the rotation */
    bool no_rope[MODEL_MAX_LAYERS]; /* the layer's q and k are not rotated */
    int window; /* keys that a token of some layer sees at most, itself included; 0: all. Not implemented: see model_open */
    int max_position_embeddings;
    struct rope_config rope;
    int default_max_model_len;      /* max_position_embeddings; x factor (linear); effective factor x original length (YaRN) */
    int32_t bos_id, eos_id;         /* config.json, overridden by generation_config.json, then by the overrides; -1: none. An id that
                                       is not of the vocabulary is none */
    int32_t eos_ids[MODEL_MAX_EOS]; /* a list ends a generation at any of them; eos_ids[0] is eos_id */
    int n_eos;
    bool has_dense_layers; /* dtrnet_layers present and not null */
    bool has_layout;       /* layer_layout present and not null */
    char layout
        [MODEL_MAX_LAYERS]; /* T dense, D attention or linear path, S nested; from layer_layout, else from dtrnet_layers, else all T */
    enum router_type router_type; /* of D and S layers */
    struct mamba_config mamba;
    enum norm_method norm_method;
    bool expert_choice;                     /* routing is "expert_choice"; the following have a meaning only then */
    enum expert_inference expert_inference; /* after the override */
    double attn_capacity, exec_capacity;    /* 0: not given */
    enum dtype save_dtype;                  /* torch_dtype or dtype; f32 if absent. The tensors' own dtype is what counts for loading */
};

/* Where the config of a model lies: dir/config.json, or `dir` itself where that is the file of a config. ERR_INVALID: the path is too long. */
int model_config_path(const char *dir, char ret[PATH_MAX], struct err *err);
/* Reads that file and, if there, dir/generation_config.json. Errors name file, key, limit and value. `o`: NULL: none. */
int model_config_load(const char *dir, const struct model_overrides *o, struct log *log, struct model_config *ret, struct err *err);
/* The same from a config file of any name, without generation_config.json. */
int model_config_load_file(const char *path, const struct model_overrides *o, struct log *log, struct model_config *ret, struct err *err);
/* The same from parsed JSON; `generation` may be NULL. */
int model_config_from_json(const json_t *config, const json_t *generation, const struct model_overrides *o, struct log *log,
                           struct model_config *ret, struct err *err);
static inline bool model_config_is_eos(const struct model_config *c, int32_t id)
{
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos_ids[i] == id)
            return true;
    return false;
}

/* The head size that kernels compute with: weights are padded to it when they are packed. */
static inline int model_config_padded_head_dim(const struct model_config *c)
{
    return (c->head_dim + 7) / 8 * 8;
}

/* Floats of one Mamba router's state. */
static inline size_t model_config_state_floats(const struct model_config *c)
{
    return mamba_state_floats(c->mamba.inner, c->mamba.d_state, c->mamba.d_conv);
}

/* A layer that dtrnet_layers or layer_layout calls dense. */
static inline bool model_config_is_dense(const struct model_config *c, int layer)
{
    return c->layout[layer] != 'D' && c->layout[layer] != 'S';
}

const char *rope_type_name(enum rope_type t); /* "default", "linear", "llama3", "yarn" */
