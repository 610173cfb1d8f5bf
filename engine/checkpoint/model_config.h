/* config.json of a checkpoint, read strictly: hyper-parameters, RoPE, ids, and the command line's overrides.
 * Any key that could change the arithmetic and is not implemented is refused by name (golden/README.md section 2). */
#pragma once
#include "common/err.h"
#include "common/json.h"
#include "common/log.h"
#include "kernels/dtype.h"
#include <stdbool.h>
#include <stdint.h>

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

/* Effective values: what the frequencies are computed from, after the rules of golden section 5 and the overrides. */
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
    const char *rope_scaling; /* JSON object; here `factor` counts and original length defaults to max_position_embeddings; or NULL */
    const char *dense_layers; /* "0,2,4", "all", "none" or NULL; applied by layer_plan */
    int bos_id, eos_id;       /* -1: keep */
};

#define MODEL_MAX_LAYERS 1024
#define MODEL_MAX_EOS 16
#define MODEL_MAX_HEAD_DIM 256

struct model_config {
    int hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab;
    float rms_eps;
    bool tied, attention_bias, mlp_bias;
    int max_position_embeddings;
    struct rope_config rope;
    int default_max_model_len;      /* max_position_embeddings; x factor (linear); effective factor x original length (YaRN) */
    int32_t bos_id, eos_id;         /* config.json, overridden by generation_config.json, then by the overrides; -1: none */
    int32_t eos_ids[MODEL_MAX_EOS]; /* a list ends a generation at any of them; eos_ids[0] is eos_id */
    int n_eos;
    bool has_dense_layers;               /* dtrnet_layers present and not null */
    bool dense_layers[MODEL_MAX_LAYERS]; /* listed in dtrnet_layers */
    enum dtype save_dtype;               /* torch_dtype or dtype; f32 if absent. The tensors' own dtype is what counts for loading */
};

/* Reads dir/config.json and, if there, dir/generation_config.json. Errors name file, key, limit and value. `o`: NULL: none. */
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

const char *rope_type_name(enum rope_type t); /* "default", "linear", "llama3", "yarn" */
