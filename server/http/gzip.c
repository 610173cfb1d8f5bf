/* See gzip.h. */
#include "server/http/gzip.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#define LEVEL 1        /* JSON shrinks nearly as well as with more, at a multiple of the speed */
#define WINDOW_BITS 14 /* 16 KiB */
#define GZIP_FORM 16   /* added to the window's bits: a gzip header and trailer */
#define MEMORY_LEVEL 7
#define STATE_BYTES ((size_t)160 << 10) /* zlib's (1 << (WINDOW_BITS + 2)) + (1 << (MEMORY_LEVEL + 9)), and its small parts */
#define BLOCK 16384

/* ---- the choice ---- */

/* Is the weight of a coding, ";q=0.5" or nothing, more than none? */
static bool is_wanted(const char *s, size_t len)
{
    const char *q = memmem(s, len, "q=", 2);
    if (!q)
        q = memmem(s, len, "Q=", 2);
    for (q = q ? q + 2 : NULL; q && q < s + len; q++)
        if (*q >= '1' && *q <= '9')
            return true;
    return !memchr(s, '=', len);
}

bool gzip_accepted(const char *accept)
{
    bool any = false;
    for (const char *s = accept; s && *s;) {
        s += strspn(s, ", \t");
        size_t len = strcspn(s, ","), name = strcspn(s, ",; \t");
        if ((name == 4 && !strncasecmp(s, "gzip", 4)) || (name == 6 && !strncasecmp(s, "x-gzip", 6)))
            return is_wanted(s + name, len - name);
        if (name == 1 && *s == '*')
            any = is_wanted(s + name, len - name);
        s += len;
    }
    return any;
}

/* ---- compressing ---- */

static bool begin(z_stream *z, struct charge *charge)
{
    *z = (z_stream){0};
    if (!charge_take(charge, STATE_BYTES))
        return false;
    if (deflateInit2(z, LEVEL, Z_DEFLATED, WINDOW_BITS + GZIP_FORM, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK)
        return true;
    charge_give(charge, STATE_BYTES);
    return false;
}

static void end(z_stream *z, struct charge *charge)
{
    deflateEnd(z);
    charge_give(charge, STATE_BYTES);
}

/* Appends the compressed form of these bytes; `last`: nothing follows. */
static int squeeze(z_stream *z, const char *bytes, size_t n, bool last, struct buf *out)
{
    unsigned char block[BLOCK];
    int r = 0;
    z->next_in = (unsigned char *)(uintptr_t)bytes;
    z->avail_in = (unsigned)n;
    do {
        z->next_out = block;
        z->avail_out = sizeof(block);
        deflate(z, last ? Z_FINISH : Z_NO_FLUSH);
        r = buf_append(out, block, sizeof(block) - z->avail_out);
    } while (r >= 0 && z->avail_out == 0);
    return r;
}

bool gzip_body(struct buf *body, struct charge *charge)
{
    struct buf out;
    z_stream z;
    size_t room = body->len;
    if (body->len > UINT_MAX || !charge_take(charge, room))
        return false;
    if (!begin(&z, charge)) {
        charge_give(charge, room);
        return false;
    }
    buf_init(&out, body->len); /* what would be larger is left as it is */
    int r = squeeze(&z, body->data, body->len, true, &out);
    end(&z, charge);
    charge_give(charge, room);
    buf_done(r < 0 ? &out : body);
    if (r >= 0)
        *body = out;
    return r >= 0;
}

/* ---- streams ---- */

struct wrapped {
    struct http_stream inner;
    struct charge *charge;
    z_stream z;
    struct buf in; /* made and not yet compressed */
};

static int wrapped_next(void *user, struct buf *out)
{
    struct wrapped *w = user;
    int more = 1;
    while (more > 0 && !out->len) {
        if (!w->in.len)
            more = w->inner.next(w->inner.user, &w->in);
        int r = more < 0 || w->in.len > UINT_MAX ? -1 : squeeze(&w->z, w->in.data, w->in.len, more == 0, out);
        buf_clear(&w->in);
        more = r < 0 ? r : more;
    }
    return more;
}

static void wrapped_done(void *user)
{
    struct wrapped *w = user;
    w->inner.done(w->inner.user);
    end(&w->z, w->charge);
    buf_done(&w->in);
    free(w);
}

bool gzip_stream(struct http_stream *stream, struct buf *begun, struct charge *charge)
{
    struct wrapped *w = calloc(1, sizeof(*w));
    if (!w || !begin(&w->z, charge)) {
        free(w);
        return false;
    }
    w->inner = *stream;
    w->charge = charge;
    w->in = *begun;
    buf_init(begun, w->in.max_bytes);
    *stream = (struct http_stream){wrapped_next, wrapped_done, w};
    return true;
}
