/* Text to token ids and back; knows nothing of models or HTTP. A tokenizer is immutable after open and may be
 * used from any number of threads.
 *
 * Conventions are Hugging Face's for the same files (AutoTokenizer of a LLaMA checkpoint): special tokens written
 * out in the text are found first and become their own id; what lies between is encoded by the model.
 * BOS is never added unless asked. Text must be valid UTF-8 (ERR_INVALID with the byte offset otherwise). */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include "tokenizer/rules.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

struct token_ids { /* zero-initialise; token_ids_done frees */
    int32_t *ids;
    size_t n, cap;
};
void token_ids_done(struct token_ids *t);

/* Loads the tokenizer of a checkpoint directory: tokenizer.json, else tokenizer.model, with tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json and generation_config.json where present, as that version of transformers does. ERR_NOT_FOUND if the directory
 * has none; ERR_CORRUPT for a bad file, ERR_UNSUPPORTED naming what in it is not carried out. */
int tokenizer_open(const char *dir, enum tokenizer_rules rules, struct log *log, struct tokenizer **ret, struct err *err);
void tokenizer_close(struct tokenizer *t); /* NULL is valid */

enum tokenizer_rules tokenizer_rules(const struct tokenizer *t);
int tokenizer_vocab_size(const struct tokenizer *t); /* largest id + 1, added tokens included */
int32_t tokenizer_bos(const struct tokenizer *t);    /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_pad(const struct tokenizer *t);
int32_t tokenizer_unk(const struct tokenizer *t);
const char *tokenizer_chat_template(const struct tokenizer *t); /* NULL: none */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* Appends the ids of text[0..len) to *ret; add_special: as the tokenizer's own post-processing does (LLaMA: BOS in front).
 * More than max_ids in *ret gives ERR_TOO_LARGE. On error *ret is unchanged. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool add_special, size_t max_ids, struct token_ids *ret,
                     struct err *err);

/* The split of lm-evaluation-harness's hf backend (lm_eval/api/model.py, TemplateLM._encode_pair): trailing white space of the
 * context moves to the continuation, both together are encoded as one text, and the context's own encoding gives the border:
 * whole[0 .. *ret_n_context) is the context. No BOS is added. An empty context gives *ret_n_context = 0. */
int tokenizer_encode_pair(const struct tokenizer *t, const char *context, size_t context_len, const char *continuation,
                          size_t continuation_len, size_t max_ids, struct token_ids *ret_whole, size_t *ret_n_context, struct err *err);

/* Text of ids, as Hugging Face's decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False). *ret is malloc'ed,
 * valid UTF-8 (bytes that do not form a character become U+FFFD), NUL-terminated. An id out of range gives ERR_INVALID. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip_special, char **ret, size_t *ret_len,
                     struct err *err);

/* The bytes that id adds to a text when it is not the first token (" cat", "\xe2" for a byte token); for the first token
 * of a text the leading space of a dummy prefix is dropped (first = true). Borrowed, lives as long as t; may be any bytes. */
const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id, bool first, size_t *ret_len);

/* The spelling of id for logprobs: token_bytes where these are valid UTF-8 and not spelled so by another id, else a unique one
 * ("bytes:\xe2" as OpenAI spells them). Borrowed. */
const char *tokenizer_token_string(const struct tokenizer *t, int32_t id, bool first, size_t *ret_len);

/* The piece as the vocabulary spells it ("<s>", "\u2581the"); for /tokenizer_info and logs. Borrowed. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id);
