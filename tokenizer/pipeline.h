/* Everything between a text and its ids, filled from tokenizer.model (llama_spm) or tokenizer.json (hf_json). */
#pragma once
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/settings.h"
#include "tokenizer/vocab.h"

#define TEMPLATE_MAX_IDS 16

struct template_ids { /* what the post-processor puts around a text */
    int32_t before[TEMPLATE_MAX_IDS], after[TEMPLATE_MAX_IDS];
    int n_before, n_after;
};

struct pipeline {
    struct vocab vocab;
    struct bpe bpe;
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct decoder decoder;
    struct template_ids template;
};

int pipeline_init(struct pipeline *p, struct err *err);
void pipeline_done(struct pipeline *p);
/* After the last added token: builds what finds them. */
int pipeline_finish(struct pipeline *p, struct err *err);

/* Appends the ids of text[0..len) (valid UTF-8), without the template's. 0, ERR_TOO_LARGE, ERR_NOMEM, ERR_INVALID. */
int pipeline_encode(const struct pipeline *p, const char *text, size_t len, struct id_sink *out);

/* LLaMA conventions over a SentencePiece BPE model, as transformers' LlamaConverter writes them down.
 * ERR_UNSUPPORTED for the model types unigram, word and char. */
int llama_spm_load(struct pipeline *p, const char *path, const struct settings *s, struct err *err);
/* The same from the file's bytes. */
int llama_spm_fill(struct pipeline *p, const unsigned char *data, size_t len, const struct settings *s, struct err *err);
