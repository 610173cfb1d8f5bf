/* model_type of config.json: LLaMA and its dense relatives, as the classes of transformers define them. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum model_type { MODEL_LLAMA, MODEL_MISTRAL, MODEL_QWEN2, MODEL_QWEN3, MODEL_SMOLLM3, MODEL_TYPES };

/* How a type comes to have a window of attention. */
enum window_rule {
    WINDOW_ALWAYS,  /* sliding_window is one for every layer */
    WINDOW_FROM,    /* with use_sliding_window, for layers from max_window_layers on */
    WINDOW_NO_ROPE, /* with use_sliding_window, for layers without positions */
};

/* Which of attention's projections have biases. */
enum bias_rule {
    BIAS_BY_KEY, /* q, k, v and o, if attention_bias says so */
    BIAS_QKV,    /* q, k and v, whatever attention_bias says */
    BIAS_NONE,   /* none, whatever it says */
};

/* What a type has that no key says, and what stands for keys that are absent. */
struct model_type_info {
    const char *name;       /* "qwen2" */
    const char *classes[3]; /* architectures ends with one of them; NULL ends the list */
    int n_kv_heads;         /* num_key_value_heads; 0: num_attention_heads */
    int head_dim;           /* 0: hidden_size / num_attention_heads */
    int max_positions;      /* max_position_embeddings */
    int window;             /* sliding_window; 0: none */
    double theta;           /* rope_theta */
    bool tied;              /* tie_word_embeddings */
    int32_t bos, eos;       /* -1: none */
    enum window_rule window_rule;
    enum bias_rule bias;
    bool mlp_bias;      /* mlp_bias is read */
    bool qk_norm;       /* heads of q and k are normed before the rotation */
    bool no_rope;       /* no_rope_layers is read */
    bool factor_counts; /* YaRN in rope_scaling with both lengths takes `factor` */
};

const struct model_type_info *model_type_info(enum model_type t);
/* false: no such type. */
bool model_type_of(const char *name, enum model_type *ret);
/* "llama, mistral, qwen2, qwen3 and smollm3", for errors. */
extern const char model_type_names[];
