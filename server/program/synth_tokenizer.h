/* The tokenizer of a random checkpoint: another's, copied. */
#pragma once
#include "common/log.h"

/* That `dir` holds a tokenizer that can be read and whose ids fit the vocabulary of `config` (a config.json).
 * ERR_INVALID names tokenizer, both sizes and what to change. */
int synth_tokenizer_check(const char *dir, const char *config, struct log *log, struct err *err);
/* Copies those of its files that are there to the directory `out`; what is there already is not overwritten (ERR_IO). */
int synth_tokenizer_copy(const char *dir, const char *out, struct err *err);
