/* tokenizer.json, the file of the `tokenizers` library, into a pipeline.
 *
 * Read strictly: every component, field and value that this program does not carry out exactly is refused by name
 * (ERR_UNSUPPORTED); what contradicts itself is ERR_CORRUPT. */
#pragma once
#include "common/log.h"
#include "tokenizer/pipeline.h"
#include <jansson.h>

/* Fills vocab, bpe, added tokens, normalizer, pre-tokenizer, decoder and template. `s` decides what transformers' class
 * changes in a file (add_prefix_space). */
int hf_json_load(struct pipeline *p, const char *path, const struct settings *s, struct log *log, struct err *err);
/* The same from the parsed file. */
int hf_json_fill(struct pipeline *p, const json_t *root, const struct settings *s, struct log *log, struct err *err);

/* One component each (hf_steps.c); o may be NULL or null. */
int hf_normalizer(struct normalizer *n, const json_t *o, struct err *err);
int hf_pretokenizer(struct pretokenizer *p, const json_t *o, const struct settings *s, struct err *err);
int hf_decoder(struct decoder *d, const json_t *o, struct err *err);
int hf_post_processor(struct template_ids *t, const json_t *o, int32_t n_ids, struct err *err);

/* ERR_UNSUPPORTED naming the first member of o that is not in `keys` (NULL at the end). */
int hf_only_keys(const json_t *o, const char *where, const char *const *keys, struct err *err);
/* The component's "type"; "" if it has none. */
const char *hf_type(const json_t *o);
