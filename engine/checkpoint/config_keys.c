/* The list of config.json's keys. Three kinds: read by model_config.c, rope_config.c or ultradeep_config.c; without meaning for inference; and keys of other
 * architectures, accepted with their neutral value alone. */
#include "engine/checkpoint/config_keys.h"
#include <string.h>

static const char *const read_keys[] = {
    "architectures",
    "attention_bias",
    "attn_capacity",
    "bos_token_id",
    "dtrnet_layers",
    "dtype",
    "eos_token_id",
    "exec_capacity",
    "expert_choice_inference",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_layout",
    "max_position_embeddings",
    "mlp_bias",
    "model_type",
    "norm_method",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pretraining_tp",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "router_d_conv",
    "router_d_state",
    "router_dim",
    "router_dt_rank",
    "router_expand",
    "router_type",
    "routing",
    "tie_word_embeddings",
    "torch_dtype",
    "vocab_size",
};

/* Training, provenance, tokenizer and sampling defaults that transformers writes into config.json. */
static const char *const ignored_keys[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "aux_loss_coef",
    "aux_loss_coeff",
    "bad_words_ids",
    "begin_suppress_tokens",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dynamic_active_target",
    "dynamic_reserve_initials",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exec_loss_coef",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_dtype",
    "min_length",
    "name_or_path",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "safe_min_attn_ratio",
    "safe_min_exec_ratio",
    "sep_token_id",
    "suppress_tokens",
    "target_attn_ratio",
    "target_exec_ratio",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "top_k",
    "top_p",
    "topk",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
};

/* Value in JSON besides null, false and empty ones, which are neutral for every key. "": none. */
static const struct {
    const char *key, *neutral;
} neutral_keys[] = {
    {"attention_multiplier", ""},
    {"attention_out_bias", ""},
    {"attn_logit_softcapping", ""},
    {"alibi", ""},
    {"attention_chunk_size", ""},
    {"clip_qkv", ""},
    {"embedding_multiplier", "1"},
    {"emb_scale", "1"},
    {"final_logit_softcapping", ""},
    {"hidden_activation", "\"silu\""},
    {"logit_scale", "1"},
    {"logits_scaling", "1"},
    {"lm_head_multiplier", "1"},
    {"mup_base_width", ""},
    {"no_rope_layers", ""},
    {"num_experts", "0"},
    {"num_experts_per_tok", "0"},
    {"num_local_experts", "0"},
    {"n_routed_experts", "0"},
    {"n_shared_experts", "0"},
    {"parallel_residual", ""},
    {"partial_rotary_factor", "1"},
    {"qk_layernorm", ""},
    {"qk_norm", ""},
    {"qkv_bias", ""},
    {"quantization_config", ""},
    {"query_pre_attn_scalar", ""},
    {"residual_multiplier", "1"},
    {"rope_interleaved", ""},
    {"rope_local_base_freq", ""},
    {"rotary_pct", "1"},
    {"scale_depth", ""},
    {"scale_emb", "1"},
    {"sliding_window", ""},
    {"sliding_window_pattern", ""},
    {"use_qk_norm", ""},
    {"use_sliding_window", ""},
    {"add_cross_attention", ""},
    {"is_decoder", ""},
    {"is_encoder_decoder", ""},
    {"pruned_heads", ""},
    {"tie_encoder_decoder", ""},
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static bool listed(const char *const *list, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i], key))
            return true;
    return false;
}

static const char *neutral_of(const char *key)
{
    for (size_t i = 0; i < COUNT(neutral_keys); i++)
        if (!strcmp(neutral_keys[i].key, key))
            return neutral_keys[i].neutral;
    return NULL;
}

static bool is_empty(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_array(v) && !json_array_size(v)) || (json_is_object(v) && !json_object_size(v));
}

static bool equals_text(const json_t *v, const char *neutral)
{
    if (json_is_number(v) && *neutral && *neutral != '"')
        return json_number_value(v) == (*neutral - '0');
    return json_is_string(v) && *neutral == '"' && !strncmp(neutral + 1, json_string_value(v), strlen(neutral + 1) - 1) &&
           json_string_length(v) == strlen(neutral) - 2;
}

/* transformers may name the kind of every layer; all full attention is what we compute. */
static bool all_full_attention(const json_t *v)
{
    size_t i;
    json_t *e;
    if (!json_is_array(v))
        return false;
    json_array_foreach ((json_t *)v, i, e)
        if (!json_is_string(e) || strcmp(json_string_value(e), "full_attention"))
            return false;
    return true;
}

static int refuse(const char *key, const json_t *v, const char *why, struct err *err)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    int r = err_field(err, ERR_UNSUPPORTED, key, "config.json: %s = %.100s %s", key, text ? text : "?", why);
    free(text);
    return r;
}

static int check_key(const char *key, const json_t *v, struct err *err)
{
    if (is_empty(v) || listed(read_keys, COUNT(read_keys), key) || listed(ignored_keys, COUNT(ignored_keys), key))
        return 0;
    if (!strcmp(key, "layer_types"))
        return all_full_attention(v) ? 0 : refuse(key, v, "is not implemented; only \"full_attention\" is", err);
    const char *neutral = neutral_of(key);
    if (!neutral)
        return refuse(key, v, "is a key that this program does not know; it may change the arithmetic", err);
    if (equals_text(v, neutral))
        return 0;
    return refuse(key, v, "is not implemented", err);
}

int config_keys_check(const json_t *config, struct err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)config, key, v) {
        int r = check_key(key, v, err);
        if (r < 0)
            return r;
    }
    return 0;
}
