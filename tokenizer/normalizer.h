/* Changes to the text before it is split into words (tokenizer.json's "normalizer"). */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/pattern.h"

enum normalizer_kind {
    NORMALIZER_PREPEND, /* text in front, unless the piece is empty */
    NORMALIZER_REPLACE, /* every match of a pattern becomes text */
    NORMALIZER_NFC,
    NORMALIZER_NFD,
    NORMALIZER_NFKC,
    NORMALIZER_NFKD,
    NORMALIZER_LOWERCASE,
    NORMALIZER_STRIP,      /* white space at the ends goes */
    NORMALIZER_PRECOMPILED /* SentencePiece's character map */
};

struct normalizer_step {
    enum normalizer_kind kind;
    const char *text; /* PREPEND, REPLACE; owned */
    size_t text_len;
    struct pattern *pattern;   /* REPLACE; owned */
    bool left, right;          /* STRIP */
    struct charsmap *charsmap; /* PRECOMPILED; owned */
};

#define NORMALIZER_MAX_STEPS 16

struct normalizer {
    struct normalizer_step steps[NORMALIZER_MAX_STEPS];
    int n;
};

/* A stretch of text on its way to the model, and where it came from. Metaspace's prepend scheme "first" needs to know whether a
 * piece begins at the very start of the text that was given, however many characters have been put in or taken out since. */
struct stretch {
    const char *s;
    size_t len;
    bool first;    /* the given text's first character lies in it, or would */
    size_t origin; /* bytes at its front that stand for the given text's first character */
};
/* The given text itself, or what of it lies behind an added token. */
struct stretch stretch_of(const char *s, size_t len, bool first);
/* Bytes [start, end) of a stretch. */
struct stretch stretch_cut(const struct stretch *t, size_t start, size_t end);

void normalizer_done(struct normalizer *n);
/* Adds a step; takes over `pattern` and `charsmap` and copies text. ERR_UNSUPPORTED above NORMALIZER_MAX_STEPS. */
int normalizer_add(struct normalizer *n, const struct normalizer_step *step, struct err *err);
/* Does a step put in or take out characters in ways that `origin` follows only up to the first one? */
bool normalizer_blurs_origin(const struct normalizer *n);

/* Does a step put text in front of the first character without standing for any? */
bool normalizer_inserts(const struct normalizer *n);

/* Normalizes *t (valid UTF-8) in place: t->s is then the same text or points into one of the two scratch bufs, valid until
 * these change. 0, ERR_NOMEM, ERR_TOO_LARGE, or ERR_INVALID (a regex that gave up). */
int normalizer_run(const struct normalizer *n, struct stretch *t, struct buf scratch[2]);
