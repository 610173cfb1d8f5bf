/* Tokens that are found in the text before the model sees it, as the `tokenizers` library finds them
 * (src/tokenizer/added_vocabulary.rs): in the raw text those with normalized = false, then in the normalized pieces
 * between them the others; at each place the longest, from left to right. */
#pragma once
#include "common/arena.h"
#include "common/err.h"
#include "tokenizer/strmap.h"
#include "tokenizer/vocab.h"
#include <stdbool.h>

struct added_token {
    const char *content;
    size_t len;
    int32_t id;
    bool single_word;    /* only where no word character touches it */
    bool lstrip, rstrip; /* takes the white space on that side with it */
    bool normalized, special;
};

struct trie_node {
    int32_t first_child, next; /* next: the sibling; -1: none */
    int32_t token;             /* index into tokens; -1: none ends here */
    unsigned char byte;
};

struct token_matcher {
    struct trie_node *nodes;
    size_t n, cap;
    int32_t roots[256]; /* -1: no token begins so */
};

struct added_tokens {
    struct added_token *tokens; /* [n]; an id occurs once */
    size_t n, cap;
    int32_t max_id;           /* of tokens; -1: none */
    struct strmap by_content; /* index into tokens */
    struct arena text;
    struct token_matcher raw, normalized;
};

int added_tokens_init(struct added_tokens *a, struct err *err);
void added_tokens_done(struct added_tokens *a);

/* The token's id is its piece's in the vocabulary, else the next free one; t->id is ignored, t->content copied. A content
 * given again replaces the flags, but once special a token stays so, and stays raw or normalized as it was. */
int added_tokens_add(struct added_tokens *a, const struct added_token *t, const struct vocab *v, struct err *err);
/* NULL: no such token. */
const struct added_token *added_tokens_find(const struct added_tokens *a, const char *content, size_t len);

void token_matcher_init(struct token_matcher *m);
void token_matcher_done(struct token_matcher *m);
/* Looks for `pattern` from now on, and reports tokens[index]. Empty patterns are ignored; of equal ones the first counts. */
int token_matcher_add(struct token_matcher *m, const char *pattern, size_t len, int32_t index, struct err *err);

struct token_match {
    size_t start, end; /* bytes, what it strips included */
    int32_t index;     /* into tokens */
};

/* Where a search stands in text[0..len): zero-initialise, and call until false. Text between *covered (before the call)
 * and match.start is not token. */
struct token_scan {
    size_t at;      /* the next search begins here */
    size_t covered; /* end of the last match */
};
bool added_tokens_next(const struct added_tokens *a, const struct token_matcher *m, const char *text, size_t len, struct token_scan *scan,
                       struct token_match *ret);
