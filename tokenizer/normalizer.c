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
        charsmap_free(n->steps[i].charsmap);
    }
    *n = (struct normalizer){0};
}

int normalizer_add(struct normalizer *n, const struct normalizer_step *step, struct err *err)
{
    char *copy = malloc(step->text_len + 1);
    if (n->n == NORMALIZER_MAX_STEPS || !copy) {
        free(copy);
        pattern_free(step->pattern);
        charsmap_free(step->charsmap);
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

bool normalizer_blurs_origin(const struct normalizer *n)
{
    for (int i = 0; i < n->n; i++)
        if (n->steps[i].kind >= NORMALIZER_NFC && n->steps[i].kind <= NORMALIZER_NFKD)
            return true;
    return false;
}

bool normalizer_inserts(const struct normalizer *n)
{
    for (int i = 0; i < n->n; i++)
        if (n->steps[i].kind == NORMALIZER_REPLACE && n->steps[i].text_len > 0 && pattern_may_be_empty(n->steps[i].pattern))
            return true;
    return false;
}

/* ---- where a stretch came from ---- */

struct stretch stretch_of(const char *s, size_t len, bool first)
{
    return (struct stretch){s, len, first, first ? utf8_decode(s, len, NULL) : 0};
}

struct stretch stretch_cut(const struct stretch *t, size_t start, size_t end)
{
    size_t origin = t->origin > start ? t->origin - start : 0;
    return (struct stretch){t->s + start, end - start, origin > 0, origin < end - start ? origin : end - start};
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- steps: each appends what *t becomes, and gives the new origin ---- */

/* A replacement stands for the last byte of what it replaces; one for nothing at the front, for the start. */
static int replace(const struct normalizer_step *s, const struct stretch *t, struct buf *out, size_t *origin)
{
    struct pattern_scan scan = {0};
    size_t start, end, done = 0;
    int r;
    *origin = 0;
    while ((r = pattern_next(s->pattern, t->s, t->len, &scan, &start, &end)) > 0) {
        r = buf_append(out, t->s + done, start - done);
        if (r >= 0)
            r = buf_append(out, s->text, s->text_len);
        if (r < 0)
            return r;
        *origin += smaller(start, t->origin) - smaller(done, t->origin);
        if (end == 0 ? t->first : end - 1 < t->origin)
            *origin += s->text_len;
        done = end;
    }
    *origin += t->origin - smaller(done, t->origin);
    return r < 0 ? r : buf_append(out, t->s + done, t->len - done);
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

static int normalize_part(enum normalizer_kind kind, const char *text, size_t len, struct buf *out)
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

/* Inert characters are copied, and what lies between them is normalized part by part. */
static int unicode_form(enum normalizer_kind kind, const char *text, size_t len, struct buf *out)
{
    size_t start = 0;
    uint32_t cp;
    int r = 0;
    for (size_t i = 0, n; i < len && r >= 0 && (n = utf8_decode(text + i, len - i, &cp)) > 0; i += n) {
        if (cp < 0x7fd || !unicode_is_inert(cp))
            continue;
        r = normalize_part(kind, text + start, i - start, out);
        if (r >= 0)
            r = buf_append(out, text + i, n);
        start = i + n;
    }
    return r < 0 ? r : normalize_part(kind, text + start, len - start, out);
}

static int prepend(const struct normalizer_step *s, const struct stretch *t, struct buf *out, size_t *origin)
{
    int r = buf_append(out, s->text, s->text_len);
    *origin = t->origin ? t->origin + s->text_len : 0;
    return r < 0 ? r : buf_append(out, t->s, t->len);
}

static int lowercase(const struct stretch *t, struct buf *out, size_t *origin)
{
    uint32_t cp, lower[2];
    char bytes[4];
    int r = 0;
    *origin = 0;
    for (size_t i = 0, n; i < t->len && r >= 0 && (n = utf8_decode(t->s + i, t->len - i, &cp)) > 0; i += n) {
        for (int k = 0, count = unicode_lower(cp, lower); k < count && r >= 0; k++)
            r = buf_append(out, bytes, utf8_encode(bytes, lower[k]));
        if (i < t->origin)
            *origin = out->len;
    }
    return r;
}

static int strip(const struct normalizer_step *s, const struct stretch *t, struct buf *out, size_t *origin)
{
    uint32_t cp;
    size_t start = 0, end = 0;
    bool inside = !s->left;
    for (size_t i = 0, n; i < t->len && (n = utf8_decode(t->s + i, t->len - i, &cp)) > 0; i += n) {
        bool space = unicode_is_space(cp);
        if (!inside && !space) {
            start = i;
            inside = true;
        }
        if (!space || !s->right)
            end = i + n;
    }
    *origin = t->origin - smaller(start, t->origin);
    return inside && end > start ? buf_append(out, t->s + start, end - start) : 0;
}

static bool changes_nothing(const struct normalizer_step *s, const struct stretch *t)
{
    switch (s->kind) {
    case NORMALIZER_PREPEND: return t->len == 0;
    case NORMALIZER_NFC:
    case NORMALIZER_NFD:
    case NORMALIZER_NFKC:
    case NORMALIZER_NFKD: return is_normal(s->kind, t->s, t->len);
    default: return t->len == 0;
    }
}

static int run_step(const struct normalizer_step *s, const struct stretch *t, struct buf *out, size_t *origin)
{
    switch (s->kind) {
    case NORMALIZER_PREPEND: return prepend(s, t, out, origin);
    case NORMALIZER_REPLACE: return replace(s, t, out, origin);
    case NORMALIZER_LOWERCASE: return lowercase(t, out, origin);
    case NORMALIZER_STRIP: return strip(s, t, out, origin);
    case NORMALIZER_PRECOMPILED: return charsmap_run(s->charsmap, t->s, t->len, t->origin, out, origin);
    default: break;
    }
    int r = unicode_form(s->kind, t->s, t->len, out);
    *origin = t->origin && out->len ? utf8_decode(out->data, out->len, NULL) : 0;
    return r;
}

int normalizer_run(const struct normalizer *n, struct stretch *t, struct buf scratch[2])
{
    int to = 0;
    for (int i = 0; i < n->n; i++) {
        size_t origin = 0;
        if (changes_nothing(&n->steps[i], t))
            continue;
        buf_clear(&scratch[to]);
        int r = run_step(&n->steps[i], t, &scratch[to], &origin);
        if (r < 0)
            return r;
        *t = (struct stretch){scratch[to].data, scratch[to].len, t->first, smaller(origin, scratch[to].len)};
        to = !to;
    }
    return 0;
}
