/* The unigram language model of one word, as the `tokenizers` library does it (src/models/unigram/model.rs): of all ways to cut the
 * word into pieces the one with the highest sum of scores; a character that is no piece scores ten below the lowest piece, and
 * neighbours of that kind become one unknown token, or the pieces of their bytes. */
#pragma once
#include "common/err.h"
#include "tokenizer/ids.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"
#include <stdbool.h>

#define UNIGRAM_MAX_TEXT_BYTES ((size_t)64 << 20) /* all pieces together */

struct unigram {
    const struct vocab *vocab; /* borrowed; outlives the unigram */
    double *scores;            /* [vocab->n] */
    double unk_score;
    int32_t unk; /* -1: none, and an unknown character is an error */
    bool byte_fallback;
    int32_t byte_ids[256]; /* <0xNN>; -1: none */
    struct trie pieces;
};

/* Takes over `scores` (malloc'ed, [vocab->n]), also on error. ERR_CORRUPT without pieces or with too many bytes of them. */
int unigram_init(struct unigram *u, const struct vocab *vocab, double *scores, int32_t unk, bool byte_fallback, struct err *err);
void unigram_done(struct unigram *u);

/* Appends the ids of a word (valid UTF-8). 0, ERR_NOMEM, ERR_TOO_LARGE, or ERR_UNSUPPORTED (an unknown character, no unk). */
int unigram_encode(const struct unigram *u, const char *word, size_t len, struct id_sink *out);
