/* Changes to the text before it is split into words (tokenizer.json's "normalizer"). */
#pragma once
#include "common/buf.h"
#include "common/err.h"
#include "tokenizer/pattern.h"

enum normalizer_kind {
    NORMALIZER_PREPEND, /* text in front, unless the piece is empty */
    NORMALIZER_REPLACE, /* every match of a pattern becomes text */
    NORMALIZER_NFC,
    NORMALIZER_NFD,
    NORMALIZER_NFKC,
    NORMALIZER_NFKD
};

struct normalizer_step {
    enum normalizer_kind kind;
    const char *text; /* PREPEND, REPLACE; owned */
    size_t text_len;
    struct pattern *pattern; /* REPLACE; owned */
};

#define NORMALIZER_MAX_STEPS 16

struct normalizer {
    struct normalizer_step steps[NORMALIZER_MAX_STEPS];
    int n;
};

void normalizer_done(struct normalizer *n);
/* Adds a step; takes over `pattern` and copies text. ERR_UNSUPPORTED above NORMALIZER_MAX_STEPS. */
int normalizer_add(struct normalizer *n, const struct normalizer_step *step, struct err *err);

/* Normalizes text[0..len) (valid UTF-8); the result is *ret_text, which is `text` itself or points into one of the two
 * scratch bufs, valid until these change. 0, ERR_NOMEM, ERR_TOO_LARGE, or ERR_INVALID (a regex that gave up). */
int normalizer_run(const struct normalizer *n, const char *text, size_t len, struct buf scratch[2], const char **ret_text, size_t *ret_len);
