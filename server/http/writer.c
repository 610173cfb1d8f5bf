/* See writer.h. */
#include "server/http/writer.h"
#include "common/json.h"
#include <string.h>

static void bytes(struct writer *w, const char *s, size_t n)
{
    if (w->code >= 0)
        w->code = buf_append(w->buf, s, n);
}

static void separate(struct writer *w)
{
    if (w->comma)
        bytes(w, ",", 1);
    w->comma = true;
}

void writer_open(struct writer *w, char bracket)
{
    separate(w);
    bytes(w, &bracket, 1);
    w->comma = false;
}

void writer_close(struct writer *w, char bracket)
{
    bytes(w, &bracket, 1);
    w->comma = true;
}

void writer_key(struct writer *w, const char *key)
{
    separate(w);
    bytes(w, "\"", 1);
    bytes(w, key, strlen(key));
    bytes(w, "\":", 2);
    w->comma = false;
}

void writer_string(struct writer *w, const char *s, size_t len)
{
    separate(w);
    if (w->code >= 0)
        w->code = json_put_string(w->buf, s, len);
}

void writer_text(struct writer *w, const char *s)
{
    if (s)
        writer_string(w, s, strlen(s));
    else
        writer_null(w);
}

void writer_int(struct writer *w, int64_t v)
{
    char digits[24], *p = digits + sizeof(digits);
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do
        *--p = (char)('0' + u % 10);
    while (u /= 10);
    if (v < 0)
        *--p = '-';
    separate(w);
    bytes(w, p, (size_t)(digits + sizeof(digits) - p));
}

void writer_float(struct writer *w, float v)
{
    separate(w);
    if (w->code >= 0)
        w->code = json_put_float(w->buf, v);
}

void writer_double(struct writer *w, double v)
{
    separate(w);
    if (w->code >= 0)
        w->code = json_put_double(w->buf, v);
}

void writer_bool(struct writer *w, bool v)
{
    separate(w);
    bytes(w, v ? "true" : "false", v ? 4 : 5);
}

void writer_null(struct writer *w)
{
    separate(w);
    bytes(w, "null", 4);
}

void writer_raw(struct writer *w, const char *s, size_t len)
{
    separate(w);
    bytes(w, s, len);
}
