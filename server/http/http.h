/* HTTP over libmicrohttpd, which no other file includes: listening, limits, timeouts, body assembly, keep-alive, TLS, streamed
 * answers. It knows no routes and no JSON.
 *
 * One thread a connection: a handler may block for as long as its request takes. */
#pragma once
#include "common/budget.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/log.h"
#include "server/http/watcher.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_server;
struct http_exchange;

#define HTTP_ID_MAX 64
#define HTTP_CLIENT_MAX 64
#define HTTP_OTHER_DESCRIPTORS 384 /* beside max_connections: spare and closing connections, files, the device */

/* One request; lives until `finished` returned. */
struct http_request {
    const char *method, *path; /* the path is decoded, without query and authority */
    const char *host;          /* whom it is meant for: lower case, without port; "" if HTTP/1.0 does not say */
    bool malformed;            /* its head leaves doubts, so only body_error counts; the connection ends with the answer */
    const char *body;          /* [body_len], NUL-terminated; "" when there is none */
    size_t body_len;
    char id[HTTP_ID_MAX + 1];         /* the client's X-Request-Id where it is sane, else made here */
    int route;                        /* left to the handler; -1 at first */
    char client[HTTP_CLIENT_MAX + 1]; /* left to the handler: who asks; "" at first */
    bool wants_body;                  /* left to `admit`: false drops what body there is */
    int64_t tokens, rows;             /* left to the handler, for the log: prompt and generated tokens; positions computed */
    struct charge charge;             /* memory that it holds, the body included; given back in the end */
    struct http_exchange *exchange;
};

/* Pieces of an answer. `next` blocks until it can append to `out`: 1 more follows, 0 the end, negative: break the connection.
 * `done` is called once, whether the answer ended or the client left. Both run on the connection's thread. */
struct http_stream {
    int (*next)(void *user, struct buf *out);
    void (*done)(void *user);
    void *user;
};

/* The answer, zeroed but for an initialised `body`. */
struct http_response {
    int status;
    const char *content_type;   /* static; NULL: application/json */
    const char *content_policy; /* static; a Content-Security-Policy for browsers, or NULL */
    const char *allow;          /* static; the Allow header, or NULL */
    int retry_after_s;          /* 0: no header */
    bool close;                 /* end the connection after this answer */
    struct buf body;            /* taken over by http.c */
    struct http_stream stream;  /* used instead of body when next is set */
    bool events;                /* each piece of the stream is sent at once; else a short answer is sent whole */
};

/* AUTO: of those that are not on this machine, where sending the bytes costs less than compressing them. Who asks for another is not. */
enum http_gzip { HTTP_GZIP_OFF, HTTP_GZIP_AUTO, HTTP_GZIP_ON };

struct http_options {
    const char *host;
    int port;                                 /* 0: a free one */
    const char *tls_cert_file, *tls_key_file; /* both or neither */
    int max_connections;
    int header_timeout_s;    /* headers take no longer in all */
    int idle_timeout_s;      /* between requests, and while nothing of an answer is taken */
    int period_s;            /* in every such period of a body or an answer under way */
    size_t min_rate;         /* so many bytes a second must move, on average */
    size_t max_body_bytes;   /* larger bodies never reach the handler */
    const char *cors_origin; /* cors.h; NULL: none */
    enum http_gzip gzip;     /* whose answers are compressed, of the clients that ask for it */
    struct budget *budget;   /* of all requests; borrowed; NULL: none */
    struct log *log;
    int (*write_error)(struct buf *out, const struct err *err); /* the body of an error that the library answers by itself */
    /* Runs on the connection's thread when the headers are there. Negative: the request is refused, its body is not kept, and `handle`
     * gets the error as body_error. NULL: all are let in. */
    int (*admit)(void *user, struct http_request *req, struct err *err);
    /* Runs on the connection's thread once the body is complete, or with a body_error when it cannot be had. */
    void (*handle)(void *user, struct http_request *req, const struct err *body_error, struct http_response *resp);
    /* The answer was sent, or broken off (sent is then false). */
    void (*finished)(void *user, const struct http_request *req, int status, double seconds, bool sent);
    void *user;
};

/* Binds and listens at once, so that a taken port is told before a model is loaded; connections wait until http_start. */
int http_listen(const struct http_options *o, struct http_server **ret, struct err *err);
int http_start(struct http_server *h, struct err *err);
/* Reads the TLS files again: connections opened from now on use them, the others end after their answer. On an error all stays as it is. */
int http_reload(struct http_server *h, struct err *err);
int http_port(const struct http_server *h);
/* Requests whose handler has begun and whose answer is not yet sent. */
int http_in_flight(const struct http_server *h);
/* The most at a time since it was asked last. */
int http_most_in_flight(struct http_server *h);
/* Open connections; *ret_most likewise. */
int http_connections(struct http_server *h, int *ret_most);
void http_stop_accepting(struct http_server *h);
/* A descriptor that can be read once accepting has stopped and no request is in flight; borrowed. */
int http_idle_fd(const struct http_server *h);
/* Tells every request that waits, now and to come, that it is given up. */
void http_give_up(struct http_server *h);
/* Closes every connection and waits for their threads; handlers that still run must be made to return first. NULL is valid. */
void http_close(struct http_server *h);

/* The body is no longer needed. */
void http_drop_body(struct http_request *req);
/* The value of a request header, or NULL; borrowed. */
const char *http_header(const struct http_request *req, const char *name);
/* The value of a header that may be there more than once: the last; or NULL. */
const char *http_last_header(const struct http_request *req, const char *name);
/* The address of who is connected, an IPv4 one as ::ffff:a.b.c.d. False: there is none. */
bool http_peer(const struct http_request *req, unsigned char ret[16]);
/* To be called for every request but probes, which are served beyond max_connections: waits for a place if the connection has none. False:
 * too many wait. */
bool http_take_place(struct http_request *req);
/* http_in_flight of the server that the request came to. */
int http_in_flight_of(const struct http_request *req);
/* While a request waits: what becomes of its client (watcher.h). One at a time; http_unwatch returns the last state. `streams`: an answer is
 * being written, so that the watcher may not write. */
void http_watch(struct http_request *req, bool streams, void (*changed)(void *user, enum watch_state state), void *user);
enum watch_state http_unwatch(struct http_request *req);
