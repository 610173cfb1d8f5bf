/* Cuts normalized text into the words that the model encodes one by one (tokenizer.json's "pre_tokenizer"). */
#pragma once
#include "common/err.h"
#include "tokenizer/normalizer.h"

enum pretokenizer_kind {
    PRETOKENIZER_SPLIT,        /* at the matches of a pattern */
    PRETOKENIZER_PREFIX_SPACE, /* a space in front of a piece that has none */
    PRETOKENIZER_SPELL_BYTES,  /* bytes become the printable characters of GPT-2's table */
    PRETOKENIZER_METASPACE     /* spaces become a mark, and words begin at marks */
};

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_MERGED_WITH_PREVIOUS, SPLIT_MERGED_WITH_NEXT, SPLIT_CONTIGUOUS };
enum prepend_scheme { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS };

struct pretokenizer_step {
    enum pretokenizer_kind kind;
    struct pattern *pattern;      /* SPLIT; METASPACE: the mark, or NULL (no cuts). Owned */
    enum split_behavior behavior; /* SPLIT */
    bool invert;                  /* SPLIT: what is between matches is the match */
    char mark[5];                 /* METASPACE: the character that stands for a space */
    enum prepend_scheme prepend;  /* METASPACE */
};

#define PRETOKENIZER_MAX_STEPS 8

struct pretokenizer {
    struct pretokenizer_step steps[PRETOKENIZER_MAX_STEPS];
    int n;
};

void pretokenizer_done(struct pretokenizer *p);
/* Takes over step->pattern, also on error. ERR_UNSUPPORTED above PRETOKENIZER_MAX_STEPS. */
int pretokenizer_add(struct pretokenizer *p, const struct pretokenizer_step *step, struct err *err);

/* Does a Metaspace that prepends to the text's first piece alone stand behind a step that cuts? */
bool pretokenizer_asks_origin(const struct pretokenizer *p);

/* Does a step that changes text stand behind one that cuts? */
bool pretokenizer_changes_pieces(const struct pretokenizer *p);

/* Gives each word to `emit`; stops at its first negative result. Returns 0, what emit returned, ERR_NOMEM, or ERR_INVALID (a
 * regular expression that gave up). */
typedef int (*pretokenizer_emit)(void *arg, const char *word, size_t len);
int pretokenizer_run(const struct pretokenizer *p, const struct stretch *text, pretokenizer_emit emit, void *arg);
