/* One request and its answer, on the connection's thread.
 *
 * Whether a request is let in is decided when its headers are there. The body of one that is not is neither kept nor counted: a small one is
 * read and dropped, since a client that is still sending would lose its answer to a reset of the connection; a larger one is not read, and the
 * connection ends with the answer. A body that is let in is assembled in one struct buf with a hard maximum; what lies beyond the maximum
 * is dropped likewise, up to DRAIN_FACTOR times it. A request whose head leaves a doubt is answered at once, and one that came in chunks
 * ends its connection too, so that nothing that a proxy took for a body is read as a request. */
#include "server/http/exchange.h"
#include "server/http/head_shown.h"
#include "server/http/library_errors.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_FACTOR 4
#define DROPPED_MAX 65536 /* bytes of a refused request's body that are read for the client's sake */

/* ---- what handlers ask ---- */

int http_in_flight_of(const struct http_request *req)
{
    return http_in_flight(req->exchange->h);
}

const char *http_header(const struct http_request *req, const char *name)
{
    return MHD_lookup_connection_value(req->exchange->mhd, MHD_HEADER_KIND, name);
}

struct last_value {
    const char *name, *value;
};

static enum MHD_Result take_last(void *user, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct last_value *v = user;
    (void)kind;
    if (!strcasecmp(name, v->name))
        v->value = value;
    return MHD_YES;
}

const char *http_last_header(const struct http_request *req, const char *name)
{
    struct last_value v = {name, NULL};
    MHD_get_connection_values(req->exchange->mhd, MHD_HEADER_KIND, take_last, &v);
    return v.value;
}

bool http_peer(const struct http_request *req, unsigned char ret[16])
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(req->exchange->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    memset(ret, 0, 16);
    if (a && a->sa_family == AF_INET6) {
        memcpy(ret, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
    } else if (a && a->sa_family == AF_INET) {
        ret[10] = ret[11] = 0xff;
        memcpy(ret + 12, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    } else {
        return false;
    }
    return true;
}

/* HTTP/1.0 knows no interim answers. In a TLS connection the watcher cannot write, and hardly a client closes one half of it. */
static enum watch_fin choose_fin(const struct http_exchange *x, bool streams)
{
    if (streams)
        return WATCH_FIN_HALF;
    return x->h->o.tls_cert_file ? WATCH_FIN_GONE : x->http11 ? WATCH_FIN_ASK : WATCH_FIN_HALF;
}

void http_watch(struct http_request *req, bool streams, void (*changed)(void *user, enum watch_state state), void *user)
{
    struct http_exchange *x = req->exchange;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(x->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    x->watch = (struct watch){.fd = info ? info->connect_fd : -1, .fin = choose_fin(x, streams), .changed = changed, .user = user};
    watcher_add(x->h->watcher, &x->watch);
}

enum watch_state http_unwatch(struct http_request *req)
{
    return watcher_remove(req->exchange->h->watcher, &req->exchange->watch);
}

bool http_take_place(struct http_request *req)
{
    return connections_take_place(req->exchange->h->connections, req->exchange->connection);
}

/* ---- the headers ---- */

static void choose_id(struct http_exchange *x)
{
    const char *given = http_header(&x->req, "X-Request-Id");
    size_t n = given ? strlen(given) : 0;
    static const char sane[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (n > 0 && n <= HTTP_ID_MAX && strspn(given, sane) == n) {
        memcpy(x->req.id, given, n + 1);
        return;
    }
    uint64_t v = atomic_fetch_add(&x->h->next_id, 1) * 0x9e3779b97f4a7c15u;
    snprintf(x->req.id, sizeof(x->req.id), "%016llx", (unsigned long long)(v ^ (v >> 32)));
}

static bool has_body(const struct http_exchange *x)
{
    return x->framing.has_length || x->framing.chunked;
}

/* SIZE_MAX: not told. */
static size_t told_length(const struct http_exchange *x)
{
    return x->framing.chunked ? SIZE_MAX : x->framing.length;
}

/* The library's path has no query and is decoded; scheme and authority have nothing that decoding would change. */
static void check_head(struct http_exchange *x, const char *url, const char *version)
{
    struct http_request *req = &x->req;
    req->malformed = x->body_error.code < 0 ||
                     head_shown_check(x->mhd, req->method, x->line_target, x->line_target_len, version, &x->framing, &x->body_error) < 0;
    req->path = x->target.rootless || strlen(url) < x->target.path ? "/" : url + x->target.path;
    req->host = *x->target.host ? x->target.host : x->framing.host;
    req->wants_body = !req->malformed;
}

static void check_body_headers(struct http_exchange *x)
{
    const char *coding = http_header(&x->req, "Content-Encoding");
    size_t n = told_length(x), max = x->req.wants_body ? x->h->o.max_body_bytes : DROPPED_MAX;
    if (n > max && x->framing.has_length)
        err_field(&x->body_error, ERR_TOO_LARGE, "body", "the body has %zu bytes; the limit is %zu", n, max);
    if (coding && strcasecmp(coding, "identity"))
        err_field(&x->body_error, ERR_UNSUPPORTED, "Content-Encoding", "Content-Encoding %.40s is not supported; send the body as it is",
                  coding);
}

static void let_in(struct http_exchange *x)
{
    struct http_server *h = x->h;
    bool in = !x->req.malformed && (!h->o.admit || h->o.admit(h->o.user, &x->req, &x->body_error) >= 0);
    if (in)
        check_body_headers(x);
    x->drop_max = in && x->req.wants_body ? h->o.max_body_bytes * DRAIN_FACTOR : DROPPED_MAX;
    x->refused = x->body_error.code < 0;
}

static void read_head(struct http_exchange *x, const char *url, const char *method, const char *version)
{
    x->http11 = !strcmp(version, "HTTP/1.1");
    x->req.method = method;
    clock_gettime(CLOCK_MONOTONIC, &x->begin);
    check_head(x, url, version);
    choose_id(x);
    let_in(x);
}

/* Is a refused request answered before its body? Who waits for "100 Continue" sends none yet; where a malformed one's body ends is not known. */
static bool answer_early(const struct http_exchange *x)
{
    return x->refused && (x->req.malformed || http_header(&x->req, "Expect") || told_length(x) > x->drop_max);
}

/* ---- the body ---- */

static void keep_body(struct http_exchange *x, const char *data, size_t size)
{
    size_t max = x->h->o.max_body_bytes, was = x->body.len;
    if (!charge_take(&x->req.charge, size)) {
        charge_error(&x->req.charge, &x->body_error);
        return;
    }
    int r = buf_append(&x->body, data, size);
    charge_change(&x->req.charge, size, x->body.len - was);
    if (r == ERR_NOMEM)
        err_field(&x->body_error, r, "body", "no memory for a body of over %zu bytes", x->body.len);
    else if (r < 0)
        err_field(&x->body_error, r, "body", "the body is longer than %zu bytes", max);
}

void http_drop_body(struct http_request *req)
{
    struct http_exchange *x = req->exchange;
    charge_give(&req->charge, x->body.len);
    buf_done(&x->body);
    req->body = "";
    req->body_len = 0;
}

static enum MHD_Result take_body(struct http_exchange *x, const char *data, size_t *size)
{
    connections_received(x->h->connections, x->connection, *size);
    if (!x->body_error.code && x->req.wants_body)
        keep_body(x, data, *size);
    if (x->body_error.code || !x->req.wants_body) {
        http_drop_body(&x->req);
        x->dropped_bytes += *size;
        if (x->dropped_bytes > x->drop_max)
            return MHD_NO;
    }
    *size = 0;
    return MHD_YES;
}

/* ---- the answer ---- */

static void count_in(struct http_server *h)
{
    int now = atomic_fetch_add(&h->in_flight, 1) + 1, most = atomic_load(&h->most_in_flight);
    while (now > most && !atomic_compare_exchange_weak(&h->most_in_flight, &most, now))
        ;
}

static enum MHD_Result answer(struct http_exchange *x)
{
    struct http_server *h = x->h;
    struct http_response resp = {.status = 500};
    buf_init(&resp.body, (size_t)1 << 31);
    x->handled = true;
    count_in(h);
    connections_enter(h->connections, x->connection, x->refused ? CONNECTION_REFUSED : CONNECTION_WORK);
    x->req.body = x->body.data;
    x->req.body_len = x->body.len;
    h->o.handle(h->o.user, &x->req, x->body_error.code ? &x->body_error : NULL, &resp);
    if (!x->refused) /* who is refused gives way still */
        connections_enter(h->connections, x->connection, CONNECTION_ANSWER);
    return exchange_send(x, &resp);
}

/* ---- the library's calls ---- */

/* What it returns is the first value of `state` below. */
void *exchange_on_line(void *user, const char *uri, struct MHD_Connection *mhd)
{
    struct http_server *h = user;
    struct http_exchange *x = calloc(1, sizeof(*x));
    const union MHD_ConnectionInfo *socket = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    library_errors_on(socket ? socket->connect_fd : -1, h->o.tls_cert_file != NULL);
    if (info) {
        exchange_drop(h, info->socket_context);
        connections_headers(h->connections, info->socket_context);
    }
    if (!x)
        return NULL;
    x->h = h;
    x->mhd = mhd;
    x->connection = info ? info->socket_context : NULL;
    if (x->connection)
        *connections_exchange(x->connection) = x;
    x->req = (struct http_request){.route = -1, .host = "", .charge.budget = h->o.budget, .exchange = x};
    x->line_target = uri ? uri : "";
    x->line_target_len = strlen(x->line_target);
    head_check_target(x->line_target, &x->target, &x->body_error);
    buf_init(&x->body, h->o.max_body_bytes);
    buf_init(&x->piece, EXCHANGE_PIECE_MAX);
    return x;
}

static enum MHD_Result on_headers(struct http_exchange *x)
{
    if (answer_early(x))
        return answer(x);
    enum connection_phase next = x->refused || !x->req.wants_body ? CONNECTION_REFUSED : CONNECTION_BODY;
    return !has_body(x) || connections_enter(x->h->connections, x->connection, next) ? MHD_YES : MHD_NO;
}

enum MHD_Result exchange_on_request(void *user, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                    const char *data, size_t *data_size, void **state)
{
    struct http_exchange *x = *state;
    (void)user;
    (void)mhd;
    if (!x)
        return MHD_NO;
    if (!x->req.method) {
        read_head(x, url, method, version);
        return on_headers(x);
    }
    if (*data_size)
        return take_body(x, data, data_size);
    return x->handled ? MHD_YES : answer(x);
}

static double seconds_since(const struct timespec *begin)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin->tv_sec) + 1e-9 * (double)(now.tv_nsec - begin->tv_nsec);
}

void exchange_on_completed(void *user, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why)
{
    struct http_exchange *x = *state;
    struct http_server *h = user;
    if (!x)
        return;
    if (x->stream.done)
        x->stream.done(x->stream.user);
    charge_done(&x->req.charge);
    buf_done(&x->body);
    connections_enter(h->connections, x->connection, CONNECTION_IDLE);
    if (x->handled) {
        h->o.finished(h->o.user, &x->req, x->status, seconds_since(&x->begin), why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
        if (atomic_fetch_sub(&h->in_flight, 1) == 1 && atomic_load(&h->stopping))
            (void)!write(h->idle, &(uint64_t){1}, sizeof(uint64_t));
    }
    if (x->connection)
        *connections_exchange(x->connection) = NULL;
    buf_done(&x->piece);
    free(x);
    *state = NULL;
}

void exchange_drop(struct http_server *h, struct connection *one)
{
    void **slot = connections_exchange(one), *state = slot ? *slot : NULL;
    exchange_on_completed(h, NULL, &state, MHD_REQUEST_TERMINATED_WITH_ERROR);
}
