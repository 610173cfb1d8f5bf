/* What each id looks like: its piece, the bytes it adds to a text, and a spelling for logprobs that no other id has. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "tokenizer/pipeline.h"
#include <stdbool.h>

struct token_text {
    struct piece *pieces;        /* [n] as the vocabulary or the added token spells it */
    struct piece *decoded;       /* [n] as the decoder is given it */
    struct piece *bytes;         /* [n] inside a text */
    struct piece *first;         /* [n] at its start */
    struct piece *strings;       /* [n] spellings for bytes */
    struct piece *first_strings; /* [n] for first; the same array as strings if nothing is cut at the start */
    bool *special;               /* [n] */
    int32_t n;                   /* largest id + 1, added tokens included */
    struct arena memory;
};

/* Ids that are holes have the piece "" and the spelling "token_id:N". */
int token_text_init(struct token_text *t, const struct pipeline *p, struct err *err);
void token_text_done(struct token_text *t);
