/* What a tokenizer directory is, in 64 hex digits: SHA-256 over those of its files that decide ids. */
#pragma once
#include "common/err.h"

/* Over the names (with their NUL), the lengths (8 bytes, little end first) and the bytes of those of added_tokens.json,
 * generation_config.json, special_tokens_map.json, tokenizer.json, tokenizer.model and tokenizer_config.json that are there, in this order.
 * ret_hex: 64 lower-case digits and a NUL. Errors: a file that cannot be read. */
int tokenizer_hash(const char *dir, char ret_hex[65], struct err *err);
