/* What the JSON files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
 * generation_config.json, chat_template.jinja and config.json's model_type; read as transformers' _from_pretrained does. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "common/log.h"
#include "tokenizer/added_tokens.h"
#include <stdbool.h>

/* The Python classes that differ in what they do to a loaded tokenizer. */
enum tokenizer_class {
    TOKENIZER_LLAMA, /* its own BOS/EOS template replaces the file's post-processor */
    TOKENIZER_GPT2,  /* <|endoftext|> unless told otherwise */
    TOKENIZER_QWEN2,
    TOKENIZER_PRETRAINED /* everything comes from the files */
};

enum tristate { UNSET = -1, NO = 0, YES = 1 };

/* A special token's role: given as a string, as an object with flags, or not at all (content NULL). */
struct role {
    struct added_token token;
    bool has_flags;
};

enum { ROLE_BOS, ROLE_EOS, ROLE_UNK, ROLE_SEP, ROLE_PAD, ROLE_CLS, ROLE_MASK, ROLE_COUNT };

struct settings {
    enum tokenizer_class class;
    enum tristate legacy, add_bos, add_eos, add_prefix_space;
    bool null_prefix_space; /* add_prefix_space is there, and null */
    struct role roles[ROLE_COUNT];
    struct added_token *additional; /* [n_additional] additional_special_tokens */
    size_t n_additional;
    struct added_token *added; /* [n_added] added_tokens_decoder, by id */
    size_t n_added;
    char *chat_template;                                    /* NULL: none */
    int32_t generation_bos, generation_eos, generation_pad; /* of generation_config.json; -1: none */
    struct arena memory;                                    /* holds all of the above */
};

/* Absent files leave everything unset. ERR_CORRUPT for a bad file, naming it. `dir` is the checkpoint's directory;
 * spm: the tokenizer is a tokenizer.model, for which an unnamed class means LLaMA. */
int settings_read(struct settings *s, const char *dir, bool spm, struct err *err);
void settings_done(struct settings *s);

/* Adds the configured tokens in the order that transformers does. */
int settings_add_tokens(const struct settings *s, struct added_tokens *a, const struct vocab *v, struct err *err);
