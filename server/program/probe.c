/* See probe.h. */
#include "server/program/probe.h"
#include "common/monotonic.h"
#include <errno.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_MAX 65536

struct line {
    int fd;
    SSL_CTX *context;
    SSL *ssl; /* NULL: plain */
    double until_s;
};

static int cannot(const struct probe *p, const char *what, struct err *err)
{
    return err_set(err, ERR_IO, "%s port %d: %s", p->host, p->port, what);
}

/* Blocking calls end when the time is up. */
static bool set_timeouts(const struct line *l)
{
    double left = l->until_s - monotonic_seconds();
    struct timeval t = {(time_t)left, (suseconds_t)(1e6 * (left - (double)(time_t)left))};
    return left > 1e-3 && !setsockopt(l->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) &&
           !setsockopt(l->fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t));
}

static int connect_to(const struct probe *p, struct line *l, struct err *err)
{
    const char *host = !strcmp(p->host, "0.0.0.0") ? "127.0.0.1" : !strcmp(p->host, "::") ? "::1" : p->host;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char port[16];
    snprintf(port, sizeof(port), "%d", p->port);
    if (getaddrinfo(host, port, &hints, &found))
        return cannot(p, "no such address", err);
    for (struct addrinfo *a = found; a && l->fd < 0; a = a->ai_next) {
        l->fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (l->fd < 0 || (set_timeouts(l) && !connect(l->fd, a->ai_addr, a->ai_addrlen)))
            continue;
        close(l->fd);
        l->fd = -1;
    }
    freeaddrinfo(found);
    return l->fd < 0 ? cannot(p, strerror(errno), err) : 0;
}

static int begin_tls(const struct probe *p, struct line *l, struct err *err)
{
    l->context = SSL_CTX_new(TLS_client_method());
    l->ssl = l->context ? SSL_new(l->context) : NULL;
    bool ok = l->ssl && SSL_set_fd(l->ssl, l->fd) == 1 && set_timeouts(l) && SSL_connect(l->ssl) == 1;
    return ok ? 0 : cannot(p, "no TLS connection", err);
}

static ssize_t line_send(struct line *l, const char *s, size_t n)
{
    return l->ssl ? SSL_write(l->ssl, s, (int)n) : send(l->fd, s, n, MSG_NOSIGNAL);
}

static ssize_t line_receive(struct line *l, char *s, size_t n)
{
    if (!set_timeouts(l))
        return -1;
    return l->ssl ? SSL_read(l->ssl, s, (int)n) : recv(l->fd, s, n, 0);
}

/* The answer ends with the connection. */
static int exchange(const struct probe *p, struct line *l, struct buf *answer, struct err *err)
{
    char text[512], piece[4096];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", p->path);
    ssize_t got = line_send(l, text, (size_t)n);
    int r = got == n ? 0 : cannot(p, "the request was not taken", err);
    while (r >= 0 && (got = line_receive(l, piece, sizeof(piece))) > 0)
        if (buf_append(answer, piece, (size_t)got) < 0)
            r = cannot(p, "the answer is too long", err);
    return r >= 0 && !strstr(answer->data, "\r\n\r\n") ? cannot(p, "no answer in time", err) : r;
}

static void close_line(struct line *l)
{
    SSL_free(l->ssl);
    SSL_CTX_free(l->context);
    if (l->fd >= 0)
        close(l->fd);
}

int probe_get(const struct probe *p, int *ret_status, struct buf *body, struct err *err)
{
    struct line l = {.fd = -1, .until_s = monotonic_seconds() + p->timeout_s};
    struct buf answer;
    buf_init(&answer, ANSWER_MAX);
    signal(SIGPIPE, SIG_IGN); /* the TLS library writes without MSG_NOSIGNAL */
    int r = connect_to(p, &l, err);
    if (r >= 0 && p->tls)
        r = begin_tls(p, &l, err);
    if (r >= 0)
        r = exchange(p, &l, &answer, err);
    if (r >= 0 && sscanf(answer.data, "HTTP/1.%*1d %3d", ret_status) != 1)
        r = cannot(p, "what answers does not speak HTTP", err);
    if (r >= 0)
        r = buf_puts(body, strstr(answer.data, "\r\n\r\n") + 4);
    close_line(&l);
    buf_done(&answer);
    return r;
}
