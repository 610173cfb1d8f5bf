/* Which of transformers' classes AutoTokenizer takes for a directory. */
#pragma once
#include "common/err.h"
#include "tokenizer/class_rows.h"

/* `config` is tokenizer_config.json's object, `model` config.json's, `json` tokenizer.json's; NULL: no such file. ERR_UNSUPPORTED
 * naming the class, or the model type, whose rules are not carried out. */
int tokenizer_class_choose(const json_t *config, const json_t *model, const json_t *json, enum tokenizer_rules rules,
                           const struct class_row **ret, struct err *err);
