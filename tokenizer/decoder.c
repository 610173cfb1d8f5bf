/* Decoder steps: each reads one list of strings and writes another. */
#include "tokenizer/decoder.h"
#include "common/utf8.h"
#include "tokenizer/byte_chars.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

/* ---- lists ---- */

void string_list_init(struct string_list *l)
{
    *l = (struct string_list){0};
    buf_init(&l->text, SIZE_MAX / 4);
}

void string_list_done(struct string_list *l)
{
    buf_done(&l->text);
    free(l->spans);
    string_list_init(l);
}

/* Begins a new, empty string at the end. */
static int open_string(struct string_list *l)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        struct span *spans = realloc(l->spans, cap * sizeof(*spans));
        if (!spans)
            return ERR_NOMEM;
        l->spans = spans;
        l->cap = cap;
    }
    l->spans[l->n++] = (struct span){l->text.len, 0};
    return 0;
}

/* Lengthens the last string. */
static int extend(struct string_list *l, const char *s, size_t len)
{
    l->spans[l->n - 1].len += len;
    return buf_append(&l->text, s, len);
}

int string_list_add(struct string_list *l, const char *s, size_t len)
{
    int r = open_string(l);
    return r < 0 ? r : extend(l, s, len);
}

static const char *string_at(const struct string_list *l, size_t i)
{
    return l->text.data + l->spans[i].start;
}

/* ---- steps ---- */

static int replace_all(const struct decoder_step *s, const char *text, size_t len, struct string_list *out)
{
    struct pattern_scan scan = {0};
    size_t start, end, done = 0;
    int r;
    while ((r = pattern_next(s->pattern, text, len, &scan, &start, &end)) > 0) {
        r = extend(out, text + done, start - done);
        if (r >= 0)
            r = extend(out, s->text, s->text_len);
        if (r < 0)
            return r;
        done = end;
    }
    return r < 0 ? r : extend(out, text + done, len - done);
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of "<0xNN>", or -1. Rust's from_str_radix also reads "+N". */
static int fallback_byte(const char *s, size_t len)
{
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex(s[4]) < 0)
        return -1;
    return s[3] == '+' ? hex(s[4]) : hex(s[3]) < 0 ? -1 : hex(s[3]) * 16 + hex(s[4]);
}

/* The bytes gathered in `run`: one string, or a U+FFFD each. */
static int put_run(struct buf *run, struct string_list *out)
{
    int r = 0;
    if (utf8_valid_prefix(run->data, run->len) == run->len)
        r = run->len ? string_list_add(out, run->data, run->len) : 0;
    else
        for (size_t i = 0; i < run->len && r >= 0; i++)
            r = string_list_add(out, REPLACEMENT, 3);
    buf_clear(run);
    return r;
}

static int byte_fallback(const struct string_list *in, struct string_list *out)
{
    struct buf run;
    int r = 0;
    buf_init(&run, SIZE_MAX / 4);
    for (size_t i = 0; i < in->n && r >= 0; i++) {
        int byte = fallback_byte(string_at(in, i), in->spans[i].len);
        if (byte >= 0) {
            r = buf_append(&run, &(char){(char)byte}, 1);
            continue;
        }
        r = put_run(&run, out);
        if (r >= 0)
            r = string_list_add(out, string_at(in, i), in->spans[i].len);
    }
    if (r >= 0)
        r = put_run(&run, out);
    buf_done(&run);
    return r;
}

/* Bytes at the front of s that are up to `max` times the mark. */
static size_t marks_in_front(const char *s, size_t len, const char *mark, size_t max)
{
    size_t n = strlen(mark), cut = 0;
    for (size_t i = 0; i < max && n > 0 && len - cut >= n && memcmp(s + cut, mark, n) == 0; i++)
        cut += n;
    return cut;
}

static int strip(const struct decoder_step *s, const char *text, size_t len, struct string_list *out)
{
    size_t n = strlen(s->mark), start = marks_in_front(text, len, s->mark, s->start), end = len;
    for (size_t i = 0; i < s->stop && n > 0 && end - start >= n && memcmp(text + end - n, s->mark, n) == 0; i++)
        end -= n;
    return extend(out, text + start, end - start);
}

/* The bytes a byte-level token spells, or the token itself if some character is none of the table. */
static int byte_level_bytes(const char *s, size_t len, struct buf *out)
{
    size_t before = out->len;
    uint32_t cp;
    for (size_t i = 0, n; i < len; i += n) {
        n = utf8_decode(s + i, len - i, &cp);
        int byte = n ? byte_of_char(cp) : -1;
        if (byte < 0) {
            out->len = before;
            return buf_append(out, s, len);
        }
        if (buf_append(out, &(char){(char)byte}, 1) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

/* Appends bytes as UTF-8, a U+FFFD for each start of a character that is not one. */
static int put_lossy(const char *s, size_t len, struct string_list *out)
{
    int r = 0;
    for (size_t i = 0; i < len && r >= 0;) {
        size_t n = utf8_valid_prefix(s + i, len - i);
        r = extend(out, s + i, n);
        i += n;
        if (i < len && r >= 0) {
            r = extend(out, REPLACEMENT, 3);
            i += utf8_bad_length(s + i, len - i, NULL);
        }
    }
    return r;
}

static int byte_level(const struct string_list *in, struct string_list *out)
{
    struct buf bytes;
    buf_init(&bytes, SIZE_MAX / 4);
    int r = open_string(out);
    for (size_t i = 0; i < in->n && r >= 0; i++)
        r = byte_level_bytes(string_at(in, i), in->spans[i].len, &bytes);
    if (r >= 0)
        r = put_lossy(bytes.data, bytes.len, out);
    buf_done(&bytes);
    return r;
}

static int metaspace(const struct decoder_step *s, const char *text, size_t len, bool drop, struct string_list *out)
{
    size_t n = strlen(s->mark);
    int r = 0;
    while (r >= 0 && len > 0) {
        const char *mark = memmem(text, len, s->mark, n);
        size_t plain = mark ? (size_t)(mark - text) : len;
        r = extend(out, text, plain);
        if (r >= 0 && mark && !drop)
            r = extend(out, " ", 1);
        text += plain + (mark ? n : 0);
        len -= plain + (mark ? n : 0);
    }
    return r;
}

/* Steps that treat each string by itself. */
static int run_each(const struct decoder_step *s, const struct string_list *in, struct string_list *out)
{
    int r = 0;
    for (size_t i = 0; i < in->n && r >= 0; i++) {
        const char *text = string_at(in, i);
        size_t len = in->spans[i].len;
        if (s->kind != DECODER_FUSE || i == 0)
            r = open_string(out);
        if (r < 0)
            break;
        switch (s->kind) {
        case DECODER_REPLACE: r = replace_all(s, text, len, out); break;
        case DECODER_STRIP: r = strip(s, text, len, out); break;
        case DECODER_METASPACE: r = metaspace(s, text, len, i == 0 && s->drop_first, out); break;
        default: r = extend(out, text, len);
        }
    }
    return r;
}

static int run_step(const struct decoder_step *s, const struct string_list *in, struct string_list *out)
{
    out->n = 0;
    buf_clear(&out->text);
    switch (s->kind) {
    case DECODER_BYTE_FALLBACK: return byte_fallback(in, out);
    case DECODER_BYTE_LEVEL: return byte_level(in, out);
    default: return run_each(s, in, out);
    }
}

int decoder_run(const struct decoder *d, struct string_list *tokens, struct buf *out)
{
    struct string_list other;
    int r = 0;
    string_list_init(&other);
    for (int i = 0; i < d->n && r >= 0; i++) {
        r = run_step(&d->steps[i], tokens, &other);
        struct string_list swap = *tokens;
        *tokens = other;
        other = swap;
    }
    for (size_t i = 0; i < tokens->n && r >= 0; i++) {
        if (d->none && i > 0)
            r = buf_append(out, " ", 1);
        if (r >= 0)
            r = buf_append(out, string_at(tokens, i), tokens->spans[i].len);
    }
    string_list_done(&other);
    return r;
}

/* ---- one token inside a text ---- */

int decoder_token_bytes(const struct decoder *d, const char *token, size_t len, struct buf *out)
{
    struct string_list list, next;
    string_list_init(&list);
    string_list_init(&next);
    int r = string_list_add(&list, token, len);
    for (int i = 0; i < d->n && r >= 0; i++) {
        const struct decoder_step *s = &d->steps[i];
        int byte = list.n ? fallback_byte(string_at(&list, 0), list.spans[0].len) : -1;
        next.n = 0;
        buf_clear(&next.text);
        r = open_string(&next);
        if (r < 0 || list.n == 0)
            break;
        if (s->kind == DECODER_BYTE_FALLBACK && byte >= 0)
            r = extend(&next, &(char){(char)byte}, 1);
        else if (s->kind == DECODER_BYTE_LEVEL)
            r = byte_level_bytes(string_at(&list, 0), list.spans[0].len, &next.text);
        else if (s->kind == DECODER_METASPACE)
            r = metaspace(s, string_at(&list, 0), list.spans[0].len, false, &next);
        else if (s->kind == DECODER_REPLACE)
            r = replace_all(s, string_at(&list, 0), list.spans[0].len, &next);
        else
            r = extend(&next, string_at(&list, 0), list.spans[0].len);
        next.spans[0].len = next.text.len;
        struct string_list swap = list;
        list = next;
        next = swap;
    }
    if (r >= 0 && list.n)
        r = buf_append(out, string_at(&list, 0), list.spans[0].len);
    string_list_done(&list);
    string_list_done(&next);
    return r;
}

size_t decoder_first_cut(const struct decoder *d, const char *token, size_t token_len, const char *bytes, size_t len)
{
    for (int i = 0; i < d->n; i++) {
        const struct decoder_step *s = &d->steps[i];
        if (s->kind == DECODER_STRIP)
            return marks_in_front(bytes, len, s->mark, s->start);
        if (s->kind == DECODER_METASPACE && s->drop_first)
            return marks_in_front(token, token_len, s->mark, token_len) / (strlen(s->mark) ? strlen(s->mark) : 1);
    }
    return 0;
}

/* ---- life ---- */

void decoder_done(struct decoder *d)
{
    for (int i = 0; i < d->n; i++) {
        free((char *)d->steps[i].text);
        pattern_free(d->steps[i].pattern);
    }
    *d = (struct decoder){0};
}

int decoder_add(struct decoder *d, const struct decoder_step *step, struct err *err)
{
    char *copy = malloc(step->text_len + 1);
    if (!copy || d->n == DECODER_MAX_STEPS) {
        free(copy);
        pattern_free(step->pattern);
        return copy ? err_set(err, ERR_UNSUPPORTED, "decoder: more than %d steps", DECODER_MAX_STEPS)
                    : err_set(err, ERR_NOMEM, "no memory for a decoder");
    }
    if (step->text_len)
        memcpy(copy, step->text, step->text_len);
    copy[step->text_len] = 0;
    d->steps[d->n] = *step;
    d->steps[d->n++].text = copy;
    return 0;
}
