/* The keyword arguments that transformers' _from_pretrained gives to a tokenizer's constructor, before its tokens are looked at:
 * tokenizer_config.json, with special_tokens_map.json over it where there is no added_tokens_decoder. */
#pragma once
#include "common/log.h"
#include "tokenizer/settings.h"

/* *ret is an object of its own; `config` is tokenizer_config.json's (NULL: none). Tokens with flags are objects that have
 * "__type": "AddedToken". Under rules 5 additional_special_tokens has become extra_special_tokens, and named tokens have moved to
 * model_specific_special_tokens. */
int kwargs_read(const char *dir, const json_t *config, enum tokenizer_rules rules, bool has_json, struct log *log, json_t **ret,
                struct err *err);

/* bool(v), as Python has it. */
bool kwargs_truth(const json_t *v);
bool kwargs_is_token(const json_t *v); /* a string, or an object with flags */
/* str(v), while special_tokens_map.json's tokens have become tokens already, but tokenizer_config.json's are still dictionaries: the
 * content of a string or a token, borrowed; NULL for a dictionary. */
const char *kwargs_text(const json_t *v);
/* The key under which version 4 knows added_tokens.json's last token by content: that of the last token that special_tokens_map.json
 * lists, else "None" (a slip of the pen: added_tokens_map[str(token)]). */
#define KWARGS_LAST_LISTED "__last_listed"
