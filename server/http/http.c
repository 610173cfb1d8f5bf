/* The only file that includes microhttpd.h.
 *
 * Connections come from listener.c, because MHD closes what comes beyond its limit. A body is assembled in one struct buf with a hard
 * maximum. What lies beyond the maximum is read and dropped (up to DRAIN_FACTOR times it), because a client that is still sending would
 * otherwise lose the 413 to a connection reset. While a handler or a stream works the connection's idle timeout is off: MHD would count the
 * model's time as the client's idleness. */
#include "server/http/http.h"
#include "common/mapfile.h"
#include "server/http/listener.h"
#include <errno.h>
#include <microhttpd.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_FACTOR 4
#define BUDGET_FACTOR 2         /* bodies of all requests together may hold so many times the maximum of one; parsed JSON is far larger */
#define SPARE_CONNECTIONS 64    /* MHD counts a closed connection a little longer than we do */
#define CONNECTION_MEMORY 65536 /* MHD's pool a connection: headers and one piece of a body */
#define THREAD_STACK (1 << 20)
#define STREAM_BLOCK 16384
#define STREAM_MAX (1 << 26)

struct http_server {
    struct http_options o;
    struct listener *listener;
    struct watcher *watcher;
    struct mapfile cert, key;
    struct MHD_Daemon *daemon;
    atomic_int in_flight;
    int idle;                  /* eventfd: see http_idle_fd */
    _Atomic size_t body_bytes; /* of all requests */
    atomic_bool stopping;
    _Atomic uint64_t next_id;
};

/* One request on its way; MHD's con_cls. */
struct http_connection {
    struct http_server *h;
    struct MHD_Connection *mhd;
    struct http_request req;
    struct watch watch;
    struct buf body;
    struct err body_error;
    size_t counted_bytes; /* its share of http_server.body_bytes */
    size_t dropped_bytes;
    int status; /* 0: no answer queued yet */
    bool handled, http11;
    struct http_stream stream;
    struct buf piece; /* what `next` wrote and MHD has not taken yet */
    size_t piece_taken;
    bool stream_ended;
    struct timespec begin;
};

/* ---- opening ---- */

int http_listen(const struct http_options *o, struct http_server **ret, struct err *err)
{
    struct http_server *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(err, ERR_NOMEM, "no memory for the HTTP server");
    h->o = *o;
    h->idle = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h->next_id = ((uint64_t)now.tv_sec << 24) ^ (uint64_t)now.tv_nsec << 8 ^ (uint64_t)getpid();
    int r = h->idle < 0 ? err_set(err, ERR_IO, "cannot make an eventfd: %s", strerror(errno)) : watcher_open(&h->watcher, err);
    if (r >= 0)
        r = listener_open(o->host, o->port, o->max_connections, o->log, &h->listener, err);
    if (r >= 0 && o->tls_cert_file)
        r = mapfile_open(&h->cert, o->tls_cert_file, err);
    if (r >= 0 && o->tls_key_file)
        r = mapfile_open(&h->key, o->tls_key_file, err);
    if (r < 0) {
        http_close(h);
        return r;
    }
    *ret = h;
    return 0;
}

int http_port(const struct http_server *h)
{
    return listener_port(h->listener);
}

int http_in_flight(const struct http_server *h)
{
    return atomic_load(&((struct http_server *)h)->in_flight);
}

int http_in_flight_of(const struct http_request *req)
{
    return http_in_flight(req->connection->h);
}

int http_idle_fd(const struct http_server *h)
{
    return h->idle;
}

static void tell_idle(struct http_server *h)
{
    (void)!write(h->idle, &(uint64_t){1}, sizeof(uint64_t));
}

/* ---- one request ---- */

const char *http_header(const struct http_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->connection->mhd, MHD_HEADER_KIND, name);
}

/* HTTP/1.0 knows no interim answers. In a TLS connection the watcher cannot write, and hardly a client closes one half of it. */
static enum watch_fin choose_fin(const struct http_connection *c, bool streams)
{
    if (streams)
        return WATCH_FIN_HALF;
    return c->h->o.tls_cert_file ? WATCH_FIN_GONE : c->http11 ? WATCH_FIN_ASK : WATCH_FIN_HALF;
}

void http_watch(struct http_request *req, bool streams, void (*changed)(void *user, enum watch_state state), void *user)
{
    struct http_connection *c = req->connection;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(c->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    c->watch = (struct watch){.fd = info ? info->connect_fd : -1, .fin = choose_fin(c, streams), .changed = changed, .user = user};
    watcher_add(c->h->watcher, &c->watch);
}

enum watch_state http_unwatch(struct http_request *req)
{
    return watcher_remove(req->connection->h->watcher, &req->connection->watch);
}

void http_give_up(struct http_server *h)
{
    watcher_give_up(h->watcher);
}

static void choose_id(struct http_connection *c)
{
    const char *given = http_header(&c->req, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    static const char sane[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (n > 0 && n <= HTTP_ID_MAX && strspn(given, sane) == n) {
        memcpy(c->req.id, given, n + 1);
        return;
    }
    uint64_t x = atomic_fetch_add(&c->h->next_id, 1) * 0x9e3779b97f4a7c15u;
    snprintf(c->req.id, sizeof(c->req.id), "%016llx", (unsigned long long)(x ^ (x >> 32)));
}

static struct http_connection *begin_request(struct http_server *h, struct MHD_Connection *mhd, const char *url, const char *method,
                                             const char *version)
{
    struct http_connection *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->h = h;
    c->mhd = mhd;
    c->http11 = !strcmp(version, "HTTP/1.1");
    c->req = (struct http_request){.method = method, .path = url, .route = -1, .connection = c};
    buf_init(&c->body, h->o.max_body_bytes);
    buf_init(&c->piece, STREAM_MAX);
    clock_gettime(CLOCK_MONOTONIC, &c->begin);
    choose_id(c);
    const char *length = http_header(&c->req, "Content-Length");
    if (length && strtoull(length, NULL, 10) > h->o.max_body_bytes)
        err_field(&c->body_error, ERR_TOO_LARGE, "body", "the body has %.20s bytes; the limit is %zu", length, h->o.max_body_bytes);
    const char *coding = http_header(&c->req, "Content-Encoding");
    if (coding && strcasecmp(coding, "identity"))
        err_field(&c->body_error, ERR_UNSUPPORTED, "Content-Encoding", "Content-Encoding %.40s is not supported; send the body as it is",
                  coding);
    return c;
}

static void keep_body(struct http_connection *c, const char *data, size_t size)
{
    struct http_server *h = c->h;
    size_t max = h->o.max_body_bytes;
    c->counted_bytes += size;
    if (atomic_fetch_add(&h->body_bytes, size) + size > BUDGET_FACTOR * max) {
        err_set(&c->body_error, ERR_BUSY, "the bodies of all requests under way exceed %zu bytes", BUDGET_FACTOR * max);
        return;
    }
    int r = buf_append(&c->body, data, size);
    if (r == ERR_NOMEM)
        err_field(&c->body_error, r, "body", "no memory for a body of over %zu bytes", c->body.len);
    else if (r < 0)
        err_field(&c->body_error, r, "body", "the body is longer than %zu bytes", max);
}

static void drop_body(struct http_connection *c)
{
    buf_done(&c->body);
    atomic_fetch_sub(&c->h->body_bytes, c->counted_bytes);
    c->counted_bytes = 0;
}

static enum MHD_Result take_body(struct http_connection *c, const char *data, size_t *size)
{
    if (!c->body_error.code)
        keep_body(c, data, *size);
    if (c->body_error.code) {
        drop_body(c);
        c->dropped_bytes += *size;
        if (c->dropped_bytes / DRAIN_FACTOR > c->h->o.max_body_bytes)
            return MHD_NO;
    }
    *size = 0;
    return MHD_YES;
}

/* ---- answers ---- */

/* Turning the clock on starts it anew. */
static void idle_clock(struct http_connection *c, bool on)
{
    MHD_set_connection_option(c->mhd, MHD_CONNECTION_OPTION_TIMEOUT, on ? (unsigned)c->h->o.idle_timeout_s : 0u);
}

static ssize_t stream_read(void *user, uint64_t pos, char *out, size_t max)
{
    struct http_connection *c = user;
    if (c->piece_taken == c->piece.len) {
        if (c->stream_ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        buf_clear(&c->piece);
        c->piece_taken = 0;
        idle_clock(c, false);
        int r = c->stream.next(c->stream.user, &c->piece);
        idle_clock(c, true);
        if (r < 0)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        c->stream_ended = r == 0;
    }
    size_t n = c->piece.len - c->piece_taken;
    if (n == 0 && c->stream_ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    n = n < max ? n : max;
    memcpy(out, c->piece.data + c->piece_taken, n);
    c->piece_taken += n;
    return (ssize_t)n;
}

static void add_headers(struct http_connection *c, struct MHD_Response *m, const struct http_response *resp)
{
    char text[32];
    if (resp->status != 204)
        MHD_add_response_header(m, "Content-Type", resp->content_type ? resp->content_type : "application/json");
    MHD_add_response_header(m, "X-Request-Id", c->req.id);
    if (resp->allow)
        MHD_add_response_header(m, "Allow", resp->allow);
    if (resp->retry_after_s > 0) {
        snprintf(text, sizeof(text), "%d", resp->retry_after_s);
        MHD_add_response_header(m, "Retry-After", text);
    }
    if (resp->status == 401)
        MHD_add_response_header(m, "WWW-Authenticate", "Bearer");
    if (resp->stream.next)
        MHD_add_response_header(m, "Cache-Control", "no-cache");
    if (resp->close || atomic_load(&c->h->stopping))
        MHD_add_response_header(m, "Connection", "close");
}

static enum MHD_Result send_response(struct http_connection *c, struct http_response *resp)
{
    struct MHD_Response *m;
    c->stream = resp->stream;
    if (c->stream.next) {
        m = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, c, NULL);
        buf_done(&resp->body);
    } else {
        size_t len = 0;
        char *bytes = buf_take(&resp->body, &len);
        m = bytes ? MHD_create_response_from_buffer(len, bytes, MHD_RESPMEM_MUST_FREE) : NULL;
        if (bytes && !m)
            free(bytes);
    }
    if (!m)
        return MHD_NO;
    add_headers(c, m, resp);
    c->status = resp->status;
    enum MHD_Result r = MHD_queue_response(c->mhd, (unsigned)resp->status, m);
    MHD_destroy_response(m);
    return r;
}

static enum MHD_Result answer(struct http_connection *c)
{
    struct http_server *h = c->h;
    struct http_response resp = {.status = 500};
    buf_init(&resp.body, (size_t)1 << 31);
    idle_clock(c, false);
    c->handled = true;
    atomic_fetch_add(&h->in_flight, 1);
    c->req.body = c->body.data;
    c->req.body_len = c->body.len;
    h->o.handle(h->o.user, &c->req, c->body_error.code ? &c->body_error : NULL, &resp);
    enum MHD_Result r = send_response(c, &resp);
    idle_clock(c, true);
    return r;
}

/* A client that waits for "100 Continue", or would send more than is worth draining, is answered before its body. */
static bool refuse_early(const struct http_connection *c)
{
    const char *length = http_header(&c->req, "Content-Length");
    return c->body_error.code &&
           (http_header(&c->req, "Expect") || (length && strtoull(length, NULL, 10) / DRAIN_FACTOR > c->h->o.max_body_bytes));
}

static enum MHD_Result on_request(void *user, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                  const char *data, size_t *data_size, void **state)
{
    struct http_connection *c = *state;
    if (!c) {
        *state = c = begin_request(user, mhd, url, method, version);
        return !c ? MHD_NO : refuse_early(c) ? answer(c) : MHD_YES;
    }
    if (*data_size)
        return take_body(c, data, data_size);
    return c->handled ? MHD_YES : answer(c);
}

static void on_completed(void *user, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why)
{
    struct http_connection *c = *state;
    struct http_server *h = user;
    if (!c)
        return;
    if (c->stream.done)
        c->stream.done(c->stream.user);
    if (c->handled) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        h->o.finished(h->o.user, &c->req, c->status,
                      (double)(now.tv_sec - c->begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - c->begin.tv_nsec));
        if (atomic_fetch_sub(&h->in_flight, 1) == 1 && atomic_load(&h->stopping))
            tell_idle(h);
    }
    drop_body(c);
    buf_done(&c->piece);
    free(c);
    *state = NULL;
}

/* ---- connections ---- */

static void on_connection(void *user, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode what)
{
    struct http_server *h = user;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED)
        listener_slot_free(h->listener);
}

/* On the listener's thread. */
static bool on_accept(void *user, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct http_server *h = user;
    return MHD_add_connection(h->daemon, fd, addr, len) == MHD_YES; /* closes fd if not */
}

/* ---- life ---- */

static void log_mhd(void *user, const char *fmt, va_list args)
{
    char line[256];
    vsnprintf(line, sizeof(line), fmt, args);
    line[strcspn(line, "\n")] = 0;
    log_debug(user, "http: %s", line);
}

/* The files are mapped; the library wants NUL-terminated text. */
static char *text_copy(const struct mapfile *m)
{
    char *s = malloc(m->len + 1);
    if (s && m->len)
        memcpy(s, m->data, m->len);
    if (s)
        s[m->len] = 0;
    return s;
}

static int start_daemon(struct http_server *h, unsigned flags, const char *cert, const char *key, struct err *err)
{
    const char *priorities = "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1";
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)priorities},
                                   {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    /* the logger comes first, so that it hears what the other options have to say */
    h->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, h->o.log, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->o.max_connections + SPARE_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)h->o.idle_timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK, MHD_OPTION_ARRAY, cert ? tls : none, MHD_OPTION_END);
    if (!h->daemon)
        return cert ? err_field(err, ERR_INVALID, "tls-cert", "--tls-cert %s and --tls-key %s are not a usable PEM pair",
                                h->o.tls_cert_file, h->o.tls_key_file)
                    : err_set(err, ERR_IO, "the HTTP server did not start on port %d", http_port(h));
    return 0;
}

int http_start(struct http_server *h, struct err *err)
{
    unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC |
                     MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG;
    char *cert = NULL, *key = NULL;
    int r = 0;
    if (h->o.tls_cert_file) {
        flags |= MHD_USE_TLS;
        cert = text_copy(&h->cert);
        key = text_copy(&h->key);
        if (!cert || !key)
            r = err_set(err, ERR_NOMEM, "no memory for the certificate");
        else if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
            r = err_field(err, ERR_UNSUPPORTED, "tls-cert", "--tls-cert: this libmicrohttpd was built without TLS");
    }
    if (r >= 0)
        r = start_daemon(h, flags, cert, key, err);
    free(cert);
    free(key);
    if (r < 0)
        return r;
    return listener_start(h->listener, on_accept, h, err);
}

void http_stop_accepting(struct http_server *h)
{
    atomic_store(&h->stopping, true);
    listener_stop(h->listener);
    if (!atomic_load(&h->in_flight))
        tell_idle(h);
}

void http_close(struct http_server *h)
{
    if (!h)
        return;
    http_stop_accepting(h);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    listener_close(h->listener);
    watcher_close(h->watcher);
    mapfile_close(&h->cert);
    mapfile_close(&h->key);
    if (h->idle >= 0)
        close(h->idle);
    free(h);
}
