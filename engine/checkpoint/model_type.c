/* Defaults are those of transformers 4.57 and 5.24, models/<type>/configuration_<type>.py, which agree. */
#include "engine/checkpoint/model_type.h"
#include <string.h>

const char model_type_names[] = "llama, mistral, qwen2, qwen3 and smollm3";

static const struct model_type_info types[MODEL_TYPES] = {
    [MODEL_LLAMA] = {.name = "llama",
                     .classes = {"LlamaForCausalLM", "LLaMAForCausalLM"}, /* the second is of 2023's conversions */
                     .max_positions = 2048,
                     .theta = 10000,
                     .mlp_bias = true,
                     .bos = 1,
                     .eos = 2},
    [MODEL_MISTRAL] = {.name = "mistral",
                       .classes = {"MistralForCausalLM"},
                       .n_kv_heads = 8,
                       .max_positions = 131072,
                       .window = 4096,
                       .theta = 10000,
                       .bos = 1,
                       .eos = 2,
                       .bias = BIAS_NONE,
                       .factor_counts = true},
    [MODEL_QWEN2] = {.name = "qwen2",
                     .classes = {"Qwen2ForCausalLM"},
                     .n_kv_heads = 32,
                     .max_positions = 32768,
                     .window = 4096,
                     .theta = 10000,
                     .bos = -1,
                     .eos = -1,
                     .window_rule = WINDOW_FROM,
                     .bias = BIAS_QKV,
                     .factor_counts = true},
    [MODEL_QWEN3] = {.name = "qwen3",
                     .classes = {"Qwen3ForCausalLM"},
                     .n_kv_heads = 32,
                     .head_dim = 128,
                     .max_positions = 32768,
                     .window = 4096,
                     .theta = 10000,
                     .bos = -1,
                     .eos = -1,
                     .window_rule = WINDOW_FROM,
                     .qk_norm = true,
                     .factor_counts = true},
    [MODEL_SMOLLM3] = {.name = "smollm3",
                       .classes = {"SmolLM3ForCausalLM"},
                       .n_kv_heads = 4,
                       .max_positions = 32768,
                       .theta = 2e6,
                       .tied = true,
                       .bos = 128000,
                       .eos = 128001,
                       .window_rule = WINDOW_NO_ROPE,
                       .mlp_bias = true,
                       .no_rope = true,
                       .factor_counts = true},
};

const struct model_type_info *model_type_info(enum model_type t)
{
    return &types[t];
}

bool model_type_of(const char *name, enum model_type *ret)
{
    for (int t = 0; t < MODEL_TYPES; t++)
        if (!strcmp(name, types[t].name)) {
            *ret = (enum model_type)t;
            return true;
        }
    return false;
}
