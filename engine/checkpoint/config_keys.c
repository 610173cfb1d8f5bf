/* The list of config.json's keys. Three kinds: read by one of the *_config.c; without meaning for inference; and keys of other architectures,
 * accepted with their neutral value alone. docs/architectures.md has the second list too. */
#include "engine/checkpoint/config_keys.h"
#include <stdlib.h>
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
    "layer_types",
    "max_position_embeddings",
    "max_window_layers",
    "mlp_bias",
    "model_type",
    "no_rope_layer_interval",
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
    "sliding_window",
    "tie_word_embeddings",
    "torch_dtype",
    "use_sliding_window",
    "vocab_size",
};

/* Training, provenance, implementation, tokenizer and sampling defaults: what transformers, trainers and converters write into config.json
 * and no forward pass reads. */
static const char *const ignored_keys[] = {
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_comment",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_from_model_config",
    "_name_or_path",
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_dropout",
    "attn_implementation",
    "attn_pdrop",
    "auto_map",
    "aux_loss_coef",
    "aux_loss_coeff",
    "bad_words_ids",
    "base_model",
    "begin_suppress_tokens",
    "bos_token",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "description",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dynamic_active_target",
    "dynamic_reserve_initials",
    "early_stopping",
    "embd_pdrop",
    "embedding_dropout",
    "encoder_no_repeat_ngram_size",
    "eos_token",
    "exec_loss_coef",
    "exponential_decay_length_penalty",
    "ffn_dropout",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "hidden_dropout",
    "hidden_dropout_prob",
    "id2label",
    "init_device",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "language",
    "layerdrop",
    "length_penalty",
    "library_name",
    "license",
    "max_length",
    "max_new_tokens",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "min_dtype",
    "min_length",
    "mlp_dropout",
    "model_max_length",
    "model_name",
    "model_name_or_path",
    "name_or_path",
    "neftune_noise_alpha",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "onnx",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token",
    "pad_token_id",
    "padding_side",
    "pipeline_tag",
    "prefix",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_dropout",
    "resid_pdrop",
    "residual_dropout",
    "return_dict",
    "return_dict_in_generate",
    "safe_min_attn_ratio",
    "safe_min_exec_ratio",
    "seed",
    "sep_token_id",
    "seq_len",
    "seq_length",
    "suppress_tokens",
    "tags",
    "target_attn_ratio",
    "target_exec_ratio",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "tokenizer_name",
    "top_k",
    "top_p",
    "topk",
    "torch_compile",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_tracker",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attention",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_return_dict",
    "vocab_file",
};

/* transformers', compressed-tensors' and MLX's. */
static const char *const quantised_keys[] = {"compression_config", "quantization", "quantization_config"};

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
    {"no_rope_layers", ""}, /* but in smollm3 */
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
    {"query_pre_attn_scalar", ""},
    {"residual_multiplier", "1"},
    {"rope_interleaved", ""},
    {"rope_local_base_freq", ""},
    {"rotary_pct", "1"},
    {"scale_depth", ""},
    {"scale_emb", "1"},
    {"sliding_window_pattern", ""},
    {"use_qk_norm", ""},
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

static int refuse(const char *key, const json_t *v, const char *why, struct err *err)
{
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    int r = err_field(err, ERR_UNSUPPORTED, key, "config.json: %s = %.100s %s", key, text ? text : "?", why);
    free(text);
    return r;
}

/* quantization_config is a page long, so it is told by what matters. */
static int refuse_quantised(const char *key, const json_t *v, struct err *err)
{
    const json_t *method = json_object_get(v, "quant_method"), *bits = json_object_get(v, "bits");
    char text[64] = "";
    if (json_is_integer(bits))
        snprintf(text, sizeof(text), ", bits %lld", (long long)json_integer_value(bits));
    return err_field(err, ERR_UNSUPPORTED, key,
                     "config.json: %s says that the weights are quantised (quant_method '%.40s'%s), and only float32, bfloat16 and float16 "
                     "weights are implemented: take the checkpoint that it was made from",
                     key, json_is_string(method) ? json_string_value(method) : "?", text);
}

static int check_key(const char *key, const json_t *v, struct err *err)
{
    if (is_empty(v) || listed(read_keys, COUNT(read_keys), key) || listed(ignored_keys, COUNT(ignored_keys), key))
        return 0;
    if (listed(quantised_keys, COUNT(quantised_keys), key))
        return refuse_quantised(key, v, err);
    const char *neutral = neutral_of(key);
    if (!neutral)
        return refuse(key, v, "is a key that this program does not know; it may change the arithmetic (accept_config_key passes over it)",
                      err);
    if (equals_text(v, neutral))
        return 0;
    return refuse(key, v, "is not implemented", err);
}

int config_keys_check(const json_t *config, enum model_type type, struct err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)config, key, v) {
        bool no_rope = !strcmp(key, "no_rope_layers") && model_type_info(type)->no_rope;
        int r = no_rope ? 0 : check_key(key, v, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- keys that the user vouches for ------------------------------------------------------------------------------ */

/* Keys that are read for this type are not passed over: their values are what the model is. transformers' LLaMA has no window. */
static bool is_read(const char *key, enum model_type type)
{
    static const char *const of_relatives[] = {"sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
                                               "no_rope_layer_interval"};
    if (type == MODEL_LLAMA && listed(of_relatives, COUNT(of_relatives), key))
        return false;
    return listed(read_keys, COUNT(read_keys), key) || (!strcmp(key, "no_rope_layers") && model_type_info(type)->no_rope) ||
           listed(quantised_keys, COUNT(quantised_keys), key);
}

static int pass_over(json_t *config, const char *key, enum model_type type, struct log *log, struct err *err)
{
    const json_t *v = json_object_get(config, key);
    if (is_read(key, type))
        return err_field(err, ERR_INVALID, "accept_config_key", "accept_config_key %.80s: this key is read, and cannot be passed over",
                         key);
    if (!v) {
        log_warn(log, "accept_config_key %s: config.json has no such key", key);
        return 0;
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    log_warn(log, "config.json: %s = %.100s is passed over, as accept_config_key asks", key, text ? text : "?");
    free(text);
    json_object_del(config, key);
    return 0;
}

int config_keys_pass_over(const json_t *config, const char *names, enum model_type type, struct log *log, json_t **ret, struct err *err)
{
    json_t *copy = json_copy((json_t *)config);
    char *list = names ? strdup(names) : NULL, *save = NULL;
    int r = copy && (!names || list) ? 0 : err_set(err, ERR_NOMEM, "no memory for a copy of config.json");
    for (char *key = list && r >= 0 ? strtok_r(list, ",", &save) : NULL; key && r >= 0; key = strtok_r(NULL, ",", &save))
        r = pass_over(copy, key, type, log, err);
    free(list);
    if (r < 0)
        json_decref(copy);
    else
        *ret = copy;
    return r;
}

const char *config_keys_ignored(size_t i)
{
    return i < COUNT(ignored_keys) ? ignored_keys[i] : NULL;
}
