/* SentencePiece's precompiled character map, as the `tokenizers` library applies it (its normalizer Precompiled, the crate
 * spm_precompiled): a grapheme of up to five bytes is looked up whole, others character by character, and the shortest
 * beginning that the map has replaces all of what was looked up. */
#pragma once
#include "common/buf.h"
#include "common/err.h"

struct charsmap;

/* From the bytes of precompiled_charsmap: a 32-bit size, a double-array trie of so many bytes, NUL-terminated strings. Copies
 * them. ERR_CORRUPT when the sizes do not fit. */
int charsmap_new(const unsigned char *bytes, size_t len, struct charsmap **ret, struct err *err);
/* The same from base64, as tokenizer.json has it. */
int charsmap_from_base64(const char *text, size_t len, struct charsmap **ret, struct err *err);
void charsmap_free(struct charsmap *m); /* NULL is valid */

/* Appends the mapped text. *ret_origin is how much of it came from text[0..origin). 0, ERR_NOMEM or ERR_TOO_LARGE. */
int charsmap_run(const struct charsmap *m, const char *text, size_t len, size_t origin, struct buf *out, size_t *ret_origin);
