/* Token spellings back to text (tokenizer.json's "decoder"): steps over a list of strings that are joined at the end. */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include "tokenizer/pattern.h"

enum decoder_kind {
    DECODER_REPLACE,       /* in each string, every match of a pattern becomes text */
    DECODER_BYTE_FALLBACK, /* runs of <0xNN> become their bytes, or U+FFFD each if these are not UTF-8 */
    DECODER_FUSE,          /* all strings become one */
    DECODER_STRIP,         /* up to `start` / `stop` of one character at the ends of each string */
    DECODER_BYTE_LEVEL,    /* byte characters become bytes; all become one string, bad bytes U+FFFD */
    DECODER_METASPACE      /* marks become spaces; in the first string they vanish if a prefix was added */
};

struct decoder_step {
    enum decoder_kind kind;
    struct pattern *pattern; /* REPLACE; owned */
    const char *text;        /* REPLACE; owned */
    size_t text_len;
    char mark[5];       /* STRIP, METASPACE: one character */
    size_t start, stop; /* STRIP, characters */
    bool drop_first;    /* METASPACE */
};

#define DECODER_MAX_STEPS 16

struct decoder {
    struct decoder_step steps[DECODER_MAX_STEPS];
    int n;
    bool none; /* the file has no decoder: strings are joined by spaces */
};

struct span { /* bytes of a string list's text */
    size_t start, len;
};

struct string_list { /* strings one behind another in `text`; zeroed by string_list_init */
    struct buf text;
    struct span *spans;
    size_t n, cap;
};

void decoder_done(struct decoder *d);
/* Takes over step->pattern, also on error; copies text. */
int decoder_add(struct decoder *d, const struct decoder_step *step, struct err *err);

void string_list_init(struct string_list *l);
void string_list_done(struct string_list *l);
int string_list_add(struct string_list *l, const char *s, size_t len); /* 0 or ERR_NOMEM */

/* Appends the text of the tokens to out; changes `tokens`. */
int decoder_run(const struct decoder *d, struct string_list *tokens, struct buf *out);

/* Appends the bytes that one token adds inside a text: as decoder_run for it alone, but whole bytes where a character is
 * split over tokens, and nothing stripped from the text's ends. */
int decoder_token_bytes(const struct decoder *d, const char *token, size_t len, struct buf *out);
/* How many leading bytes of such a token's bytes go when it is the first of a text. */
size_t decoder_first_cut(const struct decoder *d, const char *token, size_t token_len, const char *bytes, size_t len);
