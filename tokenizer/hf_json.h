/* tokenizer.json, the file of the `tokenizers` library, into a pipeline.
 *
 * Read strictly: every component, field and value that this program does not carry out exactly is refused by name
 * (ERR_UNSUPPORTED); what contradicts itself is ERR_CORRUPT. */
#pragma once
#include "common/log.h"
#include "tokenizer/pipeline.h"
#include <jansson.h>

/* What a class does to the components of a file before it uses them. */
struct hf_overrides {
    enum { HF_PREFIX_AS_FILED, HF_PREFIX_NO, HF_PREFIX_YES } lone_prefix; /* add_prefix_space of a pre-tokenizer that is a ByteLevel */
    bool prefix_for_all;                                                  /* add_prefix_space = true for every ByteLevel */
};

/* The parsed file; *ret is the caller's. ERR_CORRUPT for what is no JSON or has more than 256 MiB. */
int hf_json_read(const char *path, json_t **ret, struct err *err);
/* Fills vocab, model, added tokens, normalizer, pre-tokenizer, decoder and template of an initialised pipeline. */
int hf_json_fill(struct pipeline *p, const json_t *root, const struct hf_overrides *o, struct log *log, struct err *err);
/* Normalizer, pre-tokenizer and decoder alone. */
int hf_components_fill(struct pipeline *p, const json_t *root, const struct hf_overrides *o, struct err *err);
/* The file as it would be with only its vocabulary, merges, post-processor and padding, and with the rest from `frame`. */
int hf_reframe(const json_t *root, const json_t *frame, json_t **ret, struct err *err);
/* pad_token of "padding", borrowed; NULL if there is none. */
const char *hf_pad_token(const json_t *root);

/* One component each; o may be NULL or null. */
int hf_normalizer(struct normalizer *n, const json_t *o, struct err *err);
int hf_pretokenizer(struct pretokenizer *p, const json_t *o, const struct hf_overrides *overrides, struct err *err);
int hf_decoder(struct decoder *d, const json_t *o, struct err *err);
int hf_post_processor(struct template_ids *t, const json_t *o, struct err *err);

/* The BPE model's options; fields that are not there keep their defaults. */
int hf_bpe_options(const struct vocab *v, const json_t *model, struct bpe_options *ret, struct err *err);
/* ERR_UNSUPPORTED naming the first member of o that is not in `keys` (NULL at the end). */
int hf_only_keys(const json_t *o, const char *where, const char *const *keys, struct err *err);
/* The component's "type"; "" if it has none. */
const char *hf_type(const json_t *o);
