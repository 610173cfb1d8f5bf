/* Tokens that are found in the text before the model sees it, as the `tokenizers` library finds them
 * (src/tokenizer/added_vocabulary.rs): in the raw text those with normalized = false, then in the normalized pieces
 * between them the others; at each place the longest, from left to right. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "tokenizer/rules.h"
#include "tokenizer/strmap.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"
#include <stdbool.h>

struct added_token {
    const char *content;
    size_t len;
    int32_t id;
    bool single_word;    /* only where no word character touches it */
    bool lstrip, rstrip; /* takes the white space on that side with it */
    bool normalized;
    bool special;
    bool ever_special, ever_normalized; /* set by added_tokens_add; the former: skipped in decoding */
    uint32_t seen;                      /* by added_tokens_add: combinations of flags that this batch ignores */
};

/* Under which of its `normalized` flags a token is looked for. A token that was given as plain and later as special with the
 * other flag is looked for both ways. */
struct added_listing {
    int32_t token; /* index into tokens */
    bool special, normalized;
};

struct added_tokens {
    enum tokenizer_rules rules; /* whose library's bookkeeping is followed */
    struct added_token *tokens; /* [n] */
    size_t n, cap;
    struct added_listing *listings; /* [n_listings] in the order of adding */
    size_t n_listings, cap_listings;
    int32_t max_id;           /* of tokens; -1: none */
    int32_t next_id;          /* for the next token of this batch that is no piece */
    bool skip_special;        /* special tokens are not looked for (split_special_tokens) */
    struct strmap by_content; /* index into tokens */
    struct arena text;
    struct trie raw, normalized;
};

int added_tokens_init(struct added_tokens *a, enum tokenizer_rules rules, struct err *err);
void added_tokens_done(struct added_tokens *a);

/* Tokens are added in batches: the ids of new ones go on from the largest id at the batch's beginning. */
void added_tokens_begin(struct added_tokens *a, const struct vocab *v);
/* The token's id is its piece's in the vocabulary, else the next free one; t->id is ignored, t->content copied. A content
 * given again replaces the flags; but version 4's library ignores flags that the token had when the batch began, or was given in
 * it before. */
int added_tokens_add(struct added_tokens *a, const struct added_token *t, const struct vocab *v, struct err *err);
/* NULL: no such token. */
const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content, size_t len);

struct token_match {
    size_t start, end; /* bytes, what it strips included */
    int32_t index;     /* into tokens */
};

/* Where a search stands in text[0..len): zero-initialise, and call until false. Text between *covered (before the call)
 * and match.start is not token. `m` is one of the tries above, its values indices into tokens. */
struct token_scan {
    size_t at;      /* the next search begins here */
    size_t covered; /* end of the last match */
};
bool added_tokens_next(const struct added_tokens *a, const struct trie *m, const char *text, size_t len, struct token_scan *scan,
                       struct token_match *ret);
