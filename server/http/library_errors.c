/* See library_errors.h. Before 1.0 the library goes on after its answer to a bad Content-Length and sends the header a second time; there the
 * whole answer is written to the socket here, and the library, left without a page, closes the connection (under TLS without an answer). */
#include "server/http/library_errors.h"
#include "server/http/library_version.h"
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PAGE_MAX 4096

static int (*write_error)(struct buf *out, const struct err *err);
static _Thread_local int status, socket_fd = -1;
static _Thread_local bool socket_tls;

void library_errors_write_with(int (*write)(struct buf *out, const struct err *err))
{
    write_error = write;
}

void library_errors_on(int fd, bool tls)
{
    socket_fd = fd;
    socket_tls = tls;
}

bool library_errors_note(const char *line)
{
    return sscanf(line, "Error processing request (HTTP response code is %d", &status) == 1;
}

/* The page's words without its tags and quotes. */
static void read_page(const char *page, size_t len, char *out, size_t size)
{
    static const char quote[] = "&quot;";
    const char *body = memmem(page, len, "<body>", 6), *end = page + len;
    size_t n = 0;
    bool tag = false;
    for (const char *p = body ? body : page; p < end && n + 1 < size; p++) {
        if ((size_t)(end - p) >= sizeof(quote) - 1 && !memcmp(p, quote, sizeof(quote) - 1))
            p += sizeof(quote) - 2;
        else if (*p == '<' || *p == '>')
            tag = *p == '<';
        else if (!tag)
            out[n++] = *p;
    }
    out[n] = 0;
}

static int code_of(int http_status)
{
    return http_status == 413 || http_status == 414 || http_status == 431 ? ERR_TOO_LARGE
           : http_status >= 500 && http_status != 505                     ? ERR_INTERNAL
                                                                          : ERR_INVALID;
}

/* Before 1.0, where the library would answer twice. */
static bool answers_twice(const char *page, size_t len)
{
    return library_version_forgives() && memmem(page, len, "<b>Content-Length</b>", 21);
}

/* The client has sent a whole header and taken all earlier answers, so the socket has room for so little. */
static void answer_here(const char *json, size_t len)
{
    char text[PAGE_MAX];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%.*s", status,
                     status == 413 ? "Content Too Large" : "Bad Request", len, (int)len, json);
    if (socket_fd >= 0 && !socket_tls && n > 0 && n < (int)sizeof(text))
        (void)!send(socket_fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static struct MHD_Response *make(const char *page, size_t len)
{
    struct err err;
    struct buf out;
    char text[400];
    size_t n = 0;
    read_page(page, len, text, sizeof(text));
    err_set(&err, code_of(status), "%s", *text ? text : "the request is malformed");
    buf_init(&out, PAGE_MAX);
    bool written = write_error && write_error(&out, &err) >= 0;
    bool here = answers_twice(page, len);
    if (here && written)
        answer_here(out.data, out.len);
    char *json = written && !here ? buf_take(&out, &n) : NULL;
    buf_done(&out);
    struct MHD_Response *r = json ? MHD_create_response_from_buffer_with_free_callback(n, json, free) : NULL;
    if (r)
        MHD_add_response_header(r, "Content-Type", "application/json");
    else
        free(json);
    return r;
}

struct MHD_Response *MHD_create_response_from_buffer(size_t size, void *buffer, enum MHD_ResponseMemoryMode mode)
{
    (void)mode; /* the library's pages are constants */
    return make(buffer, size);
}

#if MHD_VERSION >= 0x00097701
struct MHD_Response *MHD_create_response_from_buffer_static(size_t size, const void *buffer)
{
    return make(buffer, size);
}
#else
struct MHD_Response *MHD_create_response_from_buffer_static(size_t size, const void *buffer); /* of a newer library at run time */
struct MHD_Response *MHD_create_response_from_buffer_static(size_t size, const void *buffer)
{
    return make(buffer, size);
}
#endif
