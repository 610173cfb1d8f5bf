/* Everything between a text and its ids, filled from tokenizer.model (llama_spm) or tokenizer.json (hf_json). */
#pragma once
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/rules.h"
#include "tokenizer/unigram.h"
#include "tokenizer/vocab.h"

#define TEMPLATE_MAX_IDS 16

struct template_ids { /* what the post-processor puts around a text */
    int32_t before[TEMPLATE_MAX_IDS], after[TEMPLATE_MAX_IDS];
    int n_before, n_after;
    bool from_file; /* tokenizer.json has a post-processor */
};

struct pipeline {
    enum tokenizer_rules rules; /* whose added tokens these are */
    struct vocab vocab;
    bool is_unigram;
    struct bpe bpe;         /* unless is_unigram */
    struct unigram unigram; /* if is_unigram */
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct decoder decoder;
    struct template_ids template;
};

int pipeline_init(struct pipeline *p, enum tokenizer_rules rules, struct err *err);
void pipeline_done(struct pipeline *p);
/* After the last added token and step: builds what finds the tokens. ERR_UNSUPPORTED for tokens and steps that do not go together. */
int pipeline_finish(struct pipeline *p, struct err *err);

/* Appends the ids of text[0..len) (valid UTF-8), without the template's. 0, ERR_TOO_LARGE, ERR_NOMEM, ERR_INVALID. */
int pipeline_encode(const struct pipeline *p, const char *text, size_t len, struct id_sink *out);
/* The same with another normalizer than the pipeline's own, and the added tokens that are found behind it. */
int pipeline_encode_by(const struct pipeline *p, const struct normalizer *n, const struct trie *normalized, const char *text, size_t len,
                       struct id_sink *out);
/* Such tokens, normalized by n, into an initialised trie. Errors as pipeline_finish. */
int pipeline_index_normalized(const struct pipeline *p, const struct normalizer *n, struct trie *ret, struct err *err);
