/* Writes JSON into a buf without building a tree: commas are put where they belong, and the first error sticks, so that a
 * whole answer needs one check at its end. */
#pragma once
#include "common/buf.h"
#include <stdbool.h>
#include <stdint.h>

struct writer {
    struct buf *buf;
    int code;   /* 0, or the first error (ERR_TOO_LARGE, ERR_NOMEM) */
    bool comma; /* a value precedes in the open object or array */
};

static inline struct writer writer_on(struct buf *b)
{
    return (struct writer){.buf = b};
}

/* For values that are many: the place where the next one's bytes go, behind its comma, with room for n of them; NULL after an error. Then
 * writer_end says where they end. */
static inline char *writer_begin(struct writer *w, size_t n)
{
    struct buf *b = w->buf;
    if (w->code >= 0 && b->cap_bytes - b->len < n + 2)
        w->code = buf_reserve(b, n + 1);
    if (w->code < 0)
        return NULL;
    b->data[b->len] = ',';
    return b->data + b->len + w->comma;
}

static inline void writer_end(struct writer *w, char *end)
{
    w->buf->len = (size_t)(end - w->buf->data);
    *end = 0;
    w->comma = true;
}

void writer_open(struct writer *w, char bracket);   /* '{' or '[' */
void writer_close(struct writer *w, char bracket);  /* '}' or ']' */
void writer_key(struct writer *w, const char *key); /* plain ASCII */
void writer_string(struct writer *w, const char *s, size_t len);
void writer_text(struct writer *w, const char *s); /* NULL gives null */
void writer_int(struct writer *w, int64_t v);
void writer_float(struct writer *w, float v);
void writer_double(struct writer *w, double v);
void writer_bool(struct writer *w, bool v);
void writer_null(struct writer *w);
void writer_raw(struct writer *w, const char *bytes, size_t len); /* one whole JSON value */

static inline void writer_key_int(struct writer *w, const char *key, int64_t v)
{
    writer_key(w, key);
    writer_int(w, v);
}

static inline void writer_key_text(struct writer *w, const char *key, const char *s)
{
    writer_key(w, key);
    writer_text(w, s);
}
