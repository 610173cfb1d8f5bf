/* What the files that know libmicrohttpd share: http.c (the server's life) and exchange*.c (a request and its answer). */
#pragma once
#include "server/http/connections.h"
#include "server/http/http.h"
#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#define HTTP_OLDER_MAX 8

struct listener;

struct http_server {
    struct http_options o;
    struct listener *listener;
    struct connections *connections;
    struct watcher *watcher;
    pthread_mutex_t daemon_lock;              /* the two below */
    struct MHD_Daemon *daemon;                /* takes new connections */
    struct MHD_Daemon *older[HTTP_OLDER_MAX]; /* of certificates before, while they have connections */
    atomic_int in_flight;
    atomic_int most_in_flight; /* since http_most_in_flight asked */
    int idle;                  /* eventfd: see http_idle_fd */
    atomic_bool stopping;
    _Atomic uint64_t next_id;
};

/* Callbacks of the library; `user` is the http_server. */
enum MHD_Result exchange_on_request(void *user, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
                                    const char *data, size_t *data_size, void **state);
/* Ends the exchange of a connection that the library has not ended: it tells of none that it answers itself. */
void exchange_drop(struct http_server *h, struct connection *one);
void exchange_on_completed(void *user, struct MHD_Connection *mhd, void **state, enum MHD_RequestTerminationCode why);
/* The first line of a request has been read. */
void *exchange_on_line(void *user, const char *uri, struct MHD_Connection *mhd);
