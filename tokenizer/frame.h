/* Components of a tokenizer.json, written down here because a class of transformers brings them along. Each is a new reference, NULL where
 * memory ran out; a component that is given away is freed even then. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define FRAME_SPACE "\xe2\x96\x81" /* U+2581, how SentencePiece spells a space */

/* kind: "String" or "Regex". */
json_t *frame_replace(const char *kind, const char *pattern, const char *content);
json_t *frame_metaspace(const char *scheme);
json_t *frame_split(const char *kind, const char *pattern, const char *behavior);
json_t *frame_byte_level(bool prefix, bool use_regex);
/* {"type": "Sequence", key: steps[0..n)}; takes the steps. */
json_t *frame_sequence(const char *key, json_t **steps, size_t n);
/* Marks become spaces; then, where asked for, byte pieces characters, all strings one, and its first space goes. */
json_t *frame_mark_decoder(bool bytes, bool fuse, bool strip);
