/* What the JSON files beside a tokenizer say: tokenizer_config.json, special_tokens_map.json, added_tokens.json,
 * generation_config.json, chat_template.jinja and config.json's model_type and tokenizer_class; read as transformers'
 * _from_pretrained does, by the rules of version 4 or 5. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "common/log.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/class_rows.h"
#include "tokenizer/rules.h"
#include <jansson.h>
#include <stdbool.h>

/* A JSON value where Python asks for its truth. */
enum knob { KNOB_ABSENT, KNOB_NULL, KNOB_FALSE, KNOB_TRUE, KNOB_FALSY, KNOB_TRUTHY /* no boolean, as "true" or 0 */ };
/* Its truth; `absent` where the key is not there. */
bool knob_is_true(enum knob k, bool absent);

/* A token as a file gives it: a string, or an object with flags. */
struct token_spec {
    const char *content; /* NULL: none */
    size_t len;
    int32_t id;     /* added_tokens_decoder's; -1 elsewhere */
    size_t place;   /* in its list */
    bool is_object; /* given with flags */
    bool single_word, lstrip, rstrip, special;
    enum { NORMALIZED_UNLESS_SPECIAL = -1, NOT_NORMALIZED, NORMALIZED } normalized;
};

struct token_list {
    struct token_spec *t; /* [n] */
    size_t n;
};

struct settings {
    enum tokenizer_rules rules;
    const struct class_row *class;
    bool has_json; /* the directory has a tokenizer.json */
    enum knob legacy, add_bos, add_eos, add_prefix_space, from_slow, split_special;
    bool no_tokenizer_file;                  /* tokenizer_file is there, and null */
    const char *tokenizer_file, *vocab_file; /* paths; NULL: none */
    struct token_spec roles[ROLE_COUNT];
    bool given[ROLE_COUNT];            /* the role's key is in a file, be it with null */
    struct token_list extra;           /* additional_special_tokens, extra_special_tokens as a list */
    bool extra_given;                  /* extra_special_tokens is there, be it empty */
    struct token_list named;           /* extra_special_tokens as an object; under rules 5 also what keys in "_token" name */
    int *named_roles;                  /* [named.n] the role that the name is; -1: none */
    struct token_spec infill[4], fill; /* CodeLlama's prefix, middle, suffix and end tokens, and what marks the gap */
    struct token_list added;           /* added_tokens_decoder, by id */
    char *chat_template;               /* NULL: none */
    int32_t generation_bos, generation_eos, generation_pad; /* of generation_config.json; -1: none */
    struct arena memory;                                    /* holds all of the above */
};

/* Absent files leave everything unset. `json` is the parsed tokenizer.json, NULL if there is none: its added tokens count where
 * the configuration has no added_tokens_decoder. ERR_CORRUPT for a bad file, ERR_UNSUPPORTED for a class or a key whose effect
 * is not carried out, naming it. Keys that nobody knows are named in the log. */
int settings_read(struct settings *s, const char *dir, enum tokenizer_rules rules, const json_t *json, struct log *log, struct err *err);
void settings_done(struct settings *s);

/* Adds the configured tokens to what the tokenizer's own file had, in the order that transformers does. `pad` is the pad_token
 * of tokenizer.json's "padding" (NULL: none), which counts where no pad_token is configured. */
int settings_add_tokens(struct settings *s, const char *pad, struct added_tokens *a, const struct vocab *v, struct err *err);
