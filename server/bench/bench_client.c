/* See bench_client.h. */
#include "server/bench/bench_client.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX ((size_t)1 << 26)

union address {
    struct sockaddr any;
    struct sockaddr_in in;
};

int bench_client_open(int port, struct bench_client *ret, struct err *err)
{
    union address a = {.in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    int one = 1;
    *ret = (struct bench_client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    buf_init(&ret->in, ANSWER_MAX);
    if (ret->fd < 0 || connect(ret->fd, &a.any, sizeof(a.in))) {
        int saved = errno;
        bench_client_close(ret);
        return err_set(err, ERR_IO, "cannot connect to port %d: %s", port, strerror(saved));
    }
    setsockopt(ret->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return 0;
}

void bench_client_close(struct bench_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    buf_done(&c->in);
}

int bench_client_compose(const char *path, const struct buf *body, struct buf *out, struct err *err)
{
    int r = buf_printf(out, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", path,
                       body->len);
    if (r >= 0)
        r = buf_append(out, body->data, body->len);
    return r < 0 ? err_set(err, r, "no memory for a request") : 0;
}

static int send_all(struct bench_client *c, const struct buf *request, struct err *err)
{
    for (size_t done = 0; done < request->len;) {
        ssize_t n = send(c->fd, request->data + done, request->len - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(err, ERR_IO, "cannot send a request: %s", strerror(errno));
        done += (size_t)n;
    }
    return 0;
}

/* Whatever has come, at least a byte. */
static int receive(struct bench_client *c, struct err *err)
{
    char piece[16384];
    ssize_t n;
    do
        n = recv(c->fd, piece, sizeof(piece), 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return err_set(err, ERR_IO, "the connection ended before the answer: %s", n ? strerror(errno) : "closed by the server");
    return buf_append(&c->in, piece, (size_t)n) < 0 ? err_set(err, ERR_TOO_LARGE, "an answer has more than %zu bytes", ANSWER_MAX) : 0;
}

/* Bytes of the body that the headers promise; they end with a blank line. */
static size_t promised(const char *headers)
{
    static const char name[] = "\r\nContent-Length:";
    const char *at = strcasestr(headers, name);
    return at ? strtoull(at + sizeof(name) - 1, NULL, 10) : 0;
}

int bench_client_send(struct bench_client *c, const struct buf *request, struct err *err)
{
    int r = send_all(c, request, err), status = 0;
    const char *end = NULL;
    buf_clear(&c->in);
    while (r >= 0 && !(end = strstr(c->in.data, "\r\n\r\n")))
        r = receive(c, err);
    if (r < 0)
        return r;
    c->body_at = (size_t)(end - c->in.data) + 4;
    size_t whole = c->body_at + promised(c->in.data);
    while (r >= 0 && c->in.len < whole)
        r = receive(c, err);
    if (r >= 0 && (sscanf(c->in.data, "HTTP/1.1 %d", &status) != 1 || status != 200))
        r = err_set(err, ERR_IO, "the server answered %d: %.200s", status, c->in.data + c->body_at);
    return r;
}
