/* Merging the symbols of one word; private to bpe. */
#pragma once
#include "tokenizer/bpe.h"

#define BPE_NO_PAIR UINT64_MAX
#define BPE_FEW 48 /* up to so many symbols the quadratic way is the faster one */

/* NULL: the two do not merge. */
const struct bpe_merge *bpe_find_merge(const struct bpe *b, int32_t left, int32_t right);

/* Join sym[0..*n) in place, and lower *n. The results are the same. bpe_merge_many: 0 or ERR_NOMEM. */
int bpe_merge_few(const struct bpe *b, int32_t *sym, size_t *n);
int bpe_merge_many(const struct bpe *b, int32_t *sym, size_t *n);
