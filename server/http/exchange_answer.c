/* An answer and its headers, on the connection's thread. One that comes in pieces is sent whole if it is short, so that it has a length. */
#include "server/http/cors.h"
#include "server/http/exchange.h"
#include "server/http/gzip.h"
#include <stdlib.h>
#include <string.h>

#define STREAM_BLOCK 65536
#define EVENTS_BLOCK 4096 /* of a stream of events, which come one at a time; as many wait as there are clients */
#define WHOLE_MAX 262144  /* bytes of an answer that is sent with its length though it came in pieces */

static ssize_t stream_read(void *user, uint64_t pos, char *out, size_t max)
{
    struct http_exchange *x = user;
    if (x->piece_taken == x->piece.len) {
        if (x->stream_ended)
            return MHD_CONTENT_READER_END_OF_STREAM;
        buf_clear(&x->piece);
        x->piece_taken = 0;
        int r = x->stream.next(x->stream.user, &x->piece);
        if (r < 0)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        x->stream_ended = r == 0;
    }
    size_t n = x->piece.len - x->piece_taken;
    if (n == 0 && x->stream_ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    n = n < max ? n : max;
    memcpy(out, x->piece.data + x->piece_taken, n);
    x->piece_taken += n;
    return (ssize_t)n;
}

/* What lets a page of another origin read the answer, and ask in the first place. */
static void add_cors_headers(struct http_exchange *x, struct MHD_Response *m, const char *methods)
{
    const char *origin = cors_allow(x->h->o.cors_origin, http_header(&x->req, "Origin"));
    if (!origin)
        return;
    MHD_add_response_header(m, "Access-Control-Allow-Origin", origin);
    MHD_add_response_header(m, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (!methods || strcmp(x->req.method, "OPTIONS"))
        return;
    MHD_add_response_header(m, "Access-Control-Allow-Methods", methods);
    MHD_add_response_header(m, "Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id");
    MHD_add_response_header(m, "Access-Control-Max-Age", "600");
    if (http_header(&x->req, "Access-Control-Request-Private-Network"))
        MHD_add_response_header(m, "Access-Control-Allow-Private-Network", "true");
}

/* Of what a browser shows: it asks again after an update, guesses no types, and tells nobody where it came from. */
static void add_page_headers(struct MHD_Response *m, const char *policy)
{
    MHD_add_response_header(m, "Content-Security-Policy", policy);
    MHD_add_response_header(m, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(m, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(m, "Cache-Control", "no-cache");
}

static void add_headers(struct http_exchange *x, struct MHD_Response *m, const struct http_response *resp)
{
    char text[32];
    if (resp->status != 204)
        MHD_add_response_header(m, "Content-Type", resp->content_type ? resp->content_type : "application/json");
    MHD_add_response_header(m, "X-Request-Id", x->req.id);
    if (resp->content_policy)
        add_page_headers(m, resp->content_policy);
    if (x->may_gzip || x->h->o.cors_origin)
        MHD_add_response_header(m, "Vary", !x->may_gzip ? "Origin" : x->h->o.cors_origin ? "Accept-Encoding, Origin" : "Accept-Encoding");
    if (x->gzipped)
        MHD_add_response_header(m, "Content-Encoding", "gzip");
    add_cors_headers(x, m, resp->allow);
    if (resp->allow)
        MHD_add_response_header(m, "Allow", resp->allow);
    if (resp->retry_after_s > 0) {
        snprintf(text, sizeof(text), "%d", resp->retry_after_s);
        MHD_add_response_header(m, "Retry-After", text);
    }
    if (resp->status == 401)
        MHD_add_response_header(m, "WWW-Authenticate", "Bearer");
    if (resp->events)
        MHD_add_response_header(m, "Cache-Control", "no-cache");
    if (resp->close || x->req.malformed || x->framing.chunked || connections_last(x->connection) || atomic_load(&x->h->stopping))
        MHD_add_response_header(m, "Connection", "close");
}

/* The first pieces of an answer; all of it goes into the body if it is short. Negative: there is none. */
static int begin_stream(struct http_exchange *x, struct http_response *resp)
{
    int r = 1;
    x->stream = resp->stream;
    while (r > 0 && !resp->events && x->piece.len < WHOLE_MAX)
        r = x->stream.next(x->stream.user, &x->piece);
    x->stream_ended = r == 0;
    if (r == 0) {
        buf_done(&resp->body);
        resp->body = x->piece;
        buf_init(&x->piece, EXCHANGE_PIECE_MAX);
    }
    return r;
}

/* Does the client sit on this machine, as far as its address and what a proxy would add tell? */
static bool is_local(const struct http_exchange *x)
{
    static const unsigned char ipv4[13] = {[10] = 0xff, [11] = 0xff, [12] = 127}, ipv6[16] = {[15] = 1};
    static const char *const proxied[] = {"X-Forwarded-For", "Forwarded", "Via"};
    unsigned char peer[16];
    if (!http_peer(&x->req, peer) || (memcmp(peer, ipv4, sizeof(ipv4)) && memcmp(peer, ipv6, sizeof(ipv6))))
        return false;
    for (size_t i = 0; i < sizeof(proxied) / sizeof(proxied[0]); i++)
        if (http_header(&x->req, proxied[i]))
            return false;
    return true;
}

/* Events are sent as they are, so that each arrives when it is sent. */
static void compress(struct http_exchange *x, struct http_response *resp)
{
    bool streams = resp->stream.next && !x->stream_ended;
    bool wanted = x->h->o.gzip == HTTP_GZIP_ON || (x->h->o.gzip == HTTP_GZIP_AUTO && !is_local(x));
    x->may_gzip = wanted && !resp->events && (streams || resp->body.len >= GZIP_LEAST_BYTES);
    if (!x->may_gzip || !gzip_accepted(http_header(&x->req, "Accept-Encoding")))
        return;
    x->gzipped = streams ? gzip_stream(&x->stream, &x->piece, &x->req.charge) : gzip_body(&resp->body, &x->req.charge);
}

enum MHD_Result exchange_send(struct http_exchange *x, struct http_response *resp)
{
    struct MHD_Response *m;
    if (resp->stream.next && begin_stream(x, resp) < 0)
        return MHD_NO;
    compress(x, resp);
    if (resp->stream.next && !x->stream_ended) {
        m = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, resp->events ? EVENTS_BLOCK : STREAM_BLOCK, stream_read, x, NULL);
        buf_done(&resp->body);
    } else {
        size_t len = 0;
        char *bytes = buf_take(&resp->body, &len);
        m = bytes ? MHD_create_response_from_buffer_with_free_callback(len, bytes, free) : NULL;
        if (bytes && !m)
            free(bytes);
    }
    if (!m)
        return MHD_NO;
    add_headers(x, m, resp);
    x->status = resp->status;
    enum MHD_Result r = MHD_queue_response(x->mhd, (unsigned)resp->status, m);
    MHD_destroy_response(m);
    return r;
}
