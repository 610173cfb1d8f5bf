/* The table, and one walk over a file's keys. */
#include "tokenizer/key_rows.h"
#include <string.h>

static const struct key_row rows[] = {
    {"tokenizer_class", KEY_READ, NULL},
    {"legacy", KEY_READ, NULL},
    {"from_slow", KEY_READ, NULL},
    {"add_prefix_space", KEY_READ, NULL},
    {"add_bos_token", KEY_READ, NULL},
    {"add_eos_token", KEY_READ, NULL},
    {"split_special_tokens", KEY_READ, NULL},
    {"bos_token", KEY_READ, NULL},
    {"eos_token", KEY_READ, NULL},
    {"unk_token", KEY_READ, NULL},
    {"sep_token", KEY_READ, NULL},
    {"pad_token", KEY_READ, NULL},
    {"cls_token", KEY_READ, NULL},
    {"mask_token", KEY_READ, NULL},
    {"additional_special_tokens", KEY_READ, NULL},
    {"extra_special_tokens", KEY_READ, NULL},
    {"model_specific_special_tokens", KEY_READ, NULL},
    {"added_tokens_decoder", KEY_READ, NULL},
    {"prefix_token", KEY_READ, NULL},
    {"middle_token", KEY_READ, NULL},
    {"suffix_token", KEY_READ, NULL},
    {"eot_token", KEY_READ, NULL},
    {"fill_token", KEY_READ, NULL},
    {"chat_template", KEY_READ, NULL},
    {"tokenizer_file", KEY_READ, NULL},
    {"vocab_file", KEY_READ, NULL},

    {"added_tokens_file", KEY_INERT, NULL},
    {"auto_map", KEY_INERT, NULL},
    {"backend", KEY_INERT, NULL},
    {"bos_token_id", KEY_INERT, NULL},
    {"chat_control_tokens", KEY_INERT, NULL},
    {"chat_template_file", KEY_INERT, NULL},
    {"clean_up_tokenization_spaces", KEY_INERT, NULL},
    {"clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", KEY_INERT, NULL},
    {"device_map", KEY_INERT, NULL},
    {"do_lower_case", KEY_INERT, NULL},
    {"eos_token_id", KEY_INERT, NULL},
    {"errors", KEY_INERT, NULL},
    {"files_loaded", KEY_INERT, NULL},
    {"grounded_generation_template", KEY_INERT, NULL},
    {"is_local", KEY_INERT, NULL},
    {"keep_accents", KEY_INERT, NULL},
    {"local_files_only", KEY_INERT, NULL},
    {"lowercase", KEY_INERT, NULL},
    {"max_len", KEY_INERT, NULL},
    {"max_length", KEY_INERT, NULL},
    {"model_input_names", KEY_INERT, NULL},
    {"model_max_length", KEY_INERT, NULL},
    {"model_type", KEY_INERT, NULL},
    {"name_or_path", KEY_INERT, NULL},
    {"pad_to_multiple_of", KEY_INERT, NULL},
    {"pad_token_id", KEY_INERT, NULL},
    {"pad_token_type_id", KEY_INERT, NULL},
    {"padding", KEY_INERT, NULL},
    {"padding_side", KEY_INERT, NULL},
    {"processor_class", KEY_INERT, NULL},
    {"remove_space", KEY_INERT, NULL},
    {"response_schema", KEY_INERT, NULL},
    {"response_template", KEY_INERT, NULL},
    {"return_token_type_ids", KEY_INERT, NULL},
    {"sp_model_kwargs", KEY_INERT, NULL},
    {"spaces_between_special_tokens", KEY_INERT, NULL},
    {"special_tokens_map_file", KEY_INERT, NULL},
    {"stride", KEY_INERT, NULL},
    {"strip_accents", KEY_INERT, NULL},
    {"suffix_first", KEY_INERT, NULL},
    {"tokenize_chinese_chars", KEY_INERT, NULL},
    {"tokenizer_type", KEY_INERT, NULL},
    {"tokenizer_version", KEY_INERT, NULL},
    {"tool_use_template", KEY_INERT, NULL},
    {"transformers_version", KEY_INERT, NULL},
    {"trim_offsets", KEY_INERT, NULL},
    {"truncation", KEY_INERT, NULL},
    {"truncation_side", KEY_INERT, NULL},
    {"truncation_strategy", KEY_INERT, NULL},
    {"unk_token_id", KEY_INERT, NULL},
    {"use_default_system_prompt", KEY_INERT, NULL},
    {"use_fast", KEY_INERT, NULL},
    {"verbose", KEY_INERT, NULL},

    {"fast_tokenizer_files", KEY_REFUSED, "it names other files than tokenizer.json"},
    {"fix_mistral_regex", KEY_REFUSED, "it replaces the pre-tokenizer"},
    {"gguf_file", KEY_REFUSED, "it names another file"},
    {"init_inputs", KEY_REFUSED, "its values go to the class's constructor"},
    {"merges", KEY_REFUSED, "it replaces the file's merges"},
    {"post_processor", KEY_REFUSED, "it replaces the file's post-processor"},
    {"tokenizer_object", KEY_REFUSED, "it replaces the tokenizer"},
    {"tokenizer_padding", KEY_REFUSED, "it replaces the file's padding"},
    {"tokenizer_truncation", KEY_REFUSED, "it replaces the file's truncation"},
    {"unk_id", KEY_REFUSED, "it replaces the model's unknown token"},
    {"vocab", KEY_REFUSED, "it replaces the file's vocabulary"},
};

static const struct key_row *find(const char *key)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].key, key) == 0)
            return &rows[i];
    return NULL;
}

static bool is_token_key(const char *key)
{
    size_t n = strlen(key);
    return n > 6 && strcmp(key + n - 6, "_token") == 0;
}

static bool says_nothing(const json_t *v)
{
    return json_is_null(v) || json_is_false(v) || (json_is_string(v) && json_string_length(v) == 0) ||
           (!json_is_string(v) && !json_is_number(v) && !json_is_true(v) && json_array_size(v) + json_object_size(v) == 0);
}

int key_rows_check(const json_t *o, const char *file, enum tokenizer_rules rules, struct log *log, struct err *err)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)o, key, v) {
        const struct key_row *row = find(key);
        if (row && row->effect == KEY_REFUSED && !says_nothing(v))
            return err_set(err, ERR_UNSUPPORTED, "%s: the key \"%s\" is not supported: %s", file, key, row->why);
        if (!row && !(rules == TOKENIZER_RULES_5 && is_token_key(key)))
            log_warn(log, "%s: the key \"%.60s\" is none that transformers reads; it has no effect", file, key);
    }
    return 0;
}
