/* Growable bytes. Capacity doubles, never past max_bytes + 1; every append either happens whole or not at all. */
#include "common/buf.h"
#include "common/err.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char empty_bytes[1]; /* what data points to before the first append; never written */

void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){.data = empty_bytes, .max_bytes = max_bytes};
}

void buf_done(struct buf *b)
{
    if (b->cap_bytes)
        free(b->data);
    buf_init(b, b->max_bytes);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    if (b->cap_bytes)
        b->data[0] = 0;
}

char *buf_take(struct buf *b, size_t *ret_len)
{
    char *bytes = b->cap_bytes ? b->data : calloc(1, 1);
    if (!bytes)
        return NULL;
    if (ret_len)
        *ret_len = b->len;
    buf_init(b, b->max_bytes);
    return bytes;
}

int buf_reserve(struct buf *b, size_t n)
{
    if (n > b->max_bytes - b->len || n > SIZE_MAX / 2 - b->len - 1)
        return ERR_TOO_LARGE;
    size_t need = b->len + n + 1;
    if (need <= b->cap_bytes)
        return 0;
    size_t cap = b->cap_bytes < 32 ? 64 : b->cap_bytes * 2;
    if (cap > b->max_bytes)
        cap = b->max_bytes + 1;
    if (cap < need)
        cap = need;
    char *data = realloc(b->cap_bytes ? b->data : NULL, cap);
    if (!data)
        return ERR_NOMEM;
    data[b->len] = 0;
    b->data = data;
    b->cap_bytes = cap;
    return 0;
}

int buf_append(struct buf *b, const void *bytes, size_t n)
{
    if (n == 0)
        return 0;
    int r = buf_reserve(b, n);
    if (r < 0)
        return r;
    memcpy(b->data + b->len, bytes, n);
    b->len += n;
    b->data[b->len] = 0;
    return 0;
}

int buf_puts(struct buf *b, const char *s)
{
    return buf_append(b, s, strlen(s));
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    size_t room = b->cap_bytes ? b->cap_bytes - b->len : 0;
    int n = vsnprintf(room ? b->data + b->len : NULL, room, fmt, ap);
    va_end(ap);
    int r = n < 0 ? ERR_INTERNAL : (size_t)n < room && (size_t)n <= b->max_bytes - b->len ? 0 : buf_reserve(b, (size_t)n);
    if (r >= 0 && (size_t)n >= room)
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    if (r >= 0)
        b->len += (size_t)n;
    else if (b->cap_bytes)
        b->data[b->len] = 0;
    return r;
}
