/* The steps one after another, each from its input into the other of two bufs. */
#include "tokenizer/normalizer.h"
#include "common/utf8.h"
#include "tokenizer/unicode.h"
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void normalizer_done(struct normalizer *n)
{
    for (int i = 0; i < n->n; i++) {
        free((char *)n->steps[i].text);
        pattern_free(n->steps[i].pattern);
    }
    *n = (struct normalizer){0};
}

int normalizer_add(struct normalizer *n, const struct normalizer_step *step, struct err *err)
{
    char *copy = malloc(step->text_len + 1);
    if (n->n == NORMALIZER_MAX_STEPS || !copy) {
        free(copy);
        pattern_free(step->pattern);
        return n->n == NORMALIZER_MAX_STEPS ? err_set(err, ERR_UNSUPPORTED, "normalizer: more than %d steps", NORMALIZER_MAX_STEPS)
                                            : err_set(err, ERR_NOMEM, "no memory for a normalizer");
    }
    if (step->text_len)
        memcpy(copy, step->text, step->text_len);
    copy[step->text_len] = 0;
    n->steps[n->n] = *step;
    n->steps[n->n++].text = copy;
    return 0;
}

static int replace(const struct normalizer_step *s, const char *text, size_t len, struct buf *out)
{
    struct pattern_scan scan = {0};
    size_t start, end, done = 0;
    int r;
    while ((r = pattern_next(s->pattern, text, len, &scan, &start, &end)) > 0) {
        r = buf_append(out, text + done, start - done);
        if (r >= 0)
            r = buf_append(out, s->text, s->text_len);
        if (r < 0)
            return r;
        done = end;
    }
    return r < 0 ? r : buf_append(out, text + done, len - done);
}

/* NFC of Latin, Cyrillic, Chinese, Japanese and Korean text, and every form of ASCII, is the text itself. */
static bool is_normal(enum normalizer_kind kind, const char *text, size_t len)
{
    uint32_t cp;
    for (size_t i = 0, n; i < len; i += n) {
        if ((unsigned char)text[i] < 0x80) {
            n = 1;
            continue;
        }
        n = kind == NORMALIZER_NFC ? utf8_decode(text + i, len - i, &cp) : 0;
        if (n == 0 || !unicode_is_nfc_plain(cp))
            return false;
    }
    return true;
}

static int normalize_stretch(enum normalizer_kind kind, const char *text, size_t len, struct buf *out)
{
    static const utf8proc_option_t options[] = {
        [NORMALIZER_NFC] = UTF8PROC_COMPOSE,
        [NORMALIZER_NFD] = UTF8PROC_DECOMPOSE,
        [NORMALIZER_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [NORMALIZER_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *form = NULL;
    if (len == 0)
        return 0;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &form, options[kind] | UTF8PROC_STABLE);
    if (n < 0)
        return n == UTF8PROC_ERROR_NOMEM ? ERR_NOMEM : ERR_INVALID;
    int r = buf_append(out, form, (size_t)n);
    free(form);
    return r;
}

/* Inert characters are copied, and the stretches between them normalized one by one. */
static int unicode_form(enum normalizer_kind kind, const char *text, size_t len, struct buf *out)
{
    size_t start = 0;
    uint32_t cp;
    int r = 0;
    for (size_t i = 0, n; i < len && r >= 0 && (n = utf8_decode(text + i, len - i, &cp)) > 0; i += n) {
        if (cp < 0x7fd || !unicode_is_inert(cp))
            continue;
        r = normalize_stretch(kind, text + start, i - start, out);
        if (r >= 0)
            r = buf_append(out, text + i, n);
        start = i + n;
    }
    return r < 0 ? r : normalize_stretch(kind, text + start, len - start, out);
}

static int prepend(const struct normalizer_step *s, const char *text, size_t len, struct buf *out)
{
    int r = buf_append(out, s->text, s->text_len);
    return r < 0 ? r : buf_append(out, text, len);
}

static bool changes_nothing(const struct normalizer_step *s, const char *text, size_t len)
{
    switch (s->kind) {
    case NORMALIZER_PREPEND: return len == 0;
    case NORMALIZER_NFC:
    case NORMALIZER_NFD:
    case NORMALIZER_NFKC:
    case NORMALIZER_NFKD: return is_normal(s->kind, text, len);
    default: return len == 0;
    }
}

static int run_step(const struct normalizer_step *s, const char *text, size_t len, struct buf *out)
{
    switch (s->kind) {
    case NORMALIZER_PREPEND: return prepend(s, text, len, out);
    case NORMALIZER_REPLACE: return replace(s, text, len, out);
    default: return unicode_form(s->kind, text, len, out);
    }
}

int normalizer_run(const struct normalizer *n, const char *text, size_t len, struct buf scratch[2], const char **ret_text, size_t *ret_len)
{
    int to = 0;
    for (int i = 0; i < n->n; i++) {
        if (changes_nothing(&n->steps[i], text, len))
            continue;
        buf_clear(&scratch[to]);
        int r = run_step(&n->steps[i], text, len, &scratch[to]);
        if (r < 0)
            return r;
        text = scratch[to].data;
        len = scratch[to].len;
        to = !to;
    }
    *ret_text = text;
    *ret_len = len;
    return 0;
}
