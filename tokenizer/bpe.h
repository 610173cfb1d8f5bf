/* Byte pair encoding of one word, as the `tokenizers` library does it (src/models/bpe/model.rs, word.rs): the word's
 * characters become symbols (unknown ones bytes or the unknown token), then the adjacent pair with the lowest merge
 * rank, the leftmost of equals, is joined until none is left.
 *
 * Two things make it fast and change nothing. At load every piece is encoded once; a word that is a piece and was
 * found to encode as itself needs no merging. And if no merge makes a piece with a word border inside (a U+2581
 * behind another character), text that nothing has split yet is cut at those borders. */
#pragma once
#include "common/err.h"
#include "tokenizer/ids.h"
#include "tokenizer/vocab.h"
#include <stdbool.h>

#define BPE_UNK_MISSING (-2) /* an unknown token is named, but is no piece */

struct bpe_options {
    int32_t unk;        /* id for characters that are no piece; -1: they vanish; BPE_UNK_MISSING: they are an error */
    bool fuse_unk;      /* neighbours share one unk */
    bool byte_fallback; /* such characters become <0xNN> pieces where all of their bytes have one */
    bool ignore_merges; /* a word that is a piece is that piece, whatever the merges say */
};

struct bpe_merge {
    uint64_t pair; /* left id << 32 | right id; BPE_NO_PAIR: a free slot */
    int32_t rank;
    int32_t id;
};

struct bpe {
    const struct vocab *vocab; /* borrowed; outlives the bpe */
    struct bpe_options options;
    struct bpe_merge *merges; /* hash table of mask + 1 slots */
    size_t mask, n_merges;
    int32_t *char_ids;     /* [0x10000] piece of one character, by code point; -1: none */
    int32_t byte_ids[256]; /* <0xNN>; -1: none */
    unsigned char *whole;  /* [vocab->n] the piece encodes as itself */
    bool splits_at_space;
};

/* Begins with no merges; at most n will be added. */
int bpe_init(struct bpe *b, const struct vocab *vocab, const struct bpe_options *options, size_t n, struct err *err);
void bpe_done(struct bpe *b);
/* Rank is the order of calls. All three pieces must exist (ERR_CORRUPT); a pair given again takes the later rank. */
int bpe_add_merge(struct bpe *b, const char *left, size_t left_len, const char *right, size_t right_len, struct err *err);
/* After the last merge. */
int bpe_finish(struct bpe *b, struct err *err);

/* Appends the ids of a word (valid UTF-8). 0, ERR_NOMEM, ERR_TOO_LARGE, or ERR_UNSUPPORTED (BPE_UNK_MISSING). */
int bpe_encode(const struct bpe *b, const char *word, size_t len, struct id_sink *out);
