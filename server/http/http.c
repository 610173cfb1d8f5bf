/* The server's life: listening, the library's daemon with one thread a connection, stopping. Connections come from listener.c, because the
 * library closes what comes beyond its limit. Its clock for idle connections is not used: it would count the model's time as the client's
 * idleness (connections.h keeps the deadlines). */
#include "common/mapfile.h"
#include "server/http/http_private.h"
#include "server/http/library_errors.h"
#include "server/http/library_version.h"
#include "server/http/listener.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define CONNECTION_MEMORY 65536 /* MHD's pool a connection: headers and one piece of a body */
#define THREAD_STACK (1 << 20)
#define LIBRARY_CONNECTIONS \
    (1u << 30) /* connections.h keeps the limit: 0.9.75 leaves a lock taken when its own is reached, and then stands still */

/* How strictly the library reads. From 1.0 on MHD_OPTION_CLIENT_DISCIPLINE_LVL, a name that older headers lack, is at 2: what 3 changes is to
 * allow blanks in chunk extensions. What level 1 of 0.9 adds, exchange.c checks itself: the library would send the header of its answer twice. */
#define OPTION_DISCIPLINE ((enum MHD_OPTION)38)

static void on_room(void *user)
{
    listener_wake(((struct http_server *)user)->listener);
}

static int open_parts(struct http_server *h, struct err *err)
{
    const struct http_options *o = &h->o;
    const struct connections_limits limits = {.max = o->max_connections,
                                              .header_s = o->header_timeout_s,
                                              .idle_s = o->idle_timeout_s,
                                              .period_s = o->period_s,
                                              .min_rate = o->min_rate,
                                              .log = o->log,
                                              .on_room = on_room,
                                              .user = h};
    h->idle = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->idle < 0)
        return err_set(err, ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    int r = listener_open(o->host, o->port, o->log, &h->listener, err);
    if (r >= 0)
        r = connections_open(&limits, &h->connections, err);
    return r < 0 ? r : watcher_open(&h->watcher, err);
}

int http_listen(const struct http_options *o, struct http_server **ret, struct err *err)
{
    struct http_server *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(err, ERR_NOMEM, "no memory for the HTTP server");
    h->o = *o;
    pthread_mutex_init(&h->daemon_lock, NULL);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    h->next_id = ((uint64_t)now.tv_sec << 24) ^ (uint64_t)now.tv_nsec << 8 ^ (uint64_t)getpid();
    int r = open_parts(h, err);
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

int http_most_in_flight(struct http_server *h)
{
    return atomic_exchange(&h->most_in_flight, http_in_flight(h));
}

int http_connections(struct http_server *h, int *ret_most)
{
    return connections_number(h->connections, ret_most);
}

int http_idle_fd(const struct http_server *h)
{
    return h->idle;
}

void http_give_up(struct http_server *h)
{
    connections_stop(h->connections);
    watcher_give_up(h->watcher);
}

/* ---- connections ---- */

static void on_connection(void *user, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode what)
{
    struct http_server *h = user;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        exchange_drop(h, *context);
        connections_remove(h->connections, *context);
    } else {
        *context = info ? connections_add(h->connections, info->connect_fd) : NULL;
    }
}

static bool on_room_asked(void *user)
{
    return connections_room(((struct http_server *)user)->connections);
}

static bool on_short_of_descriptors(void *user)
{
    return connections_give_way(((struct http_server *)user)->connections);
}

/* On the listener's thread. A connection that the library refuses is closed by it. */
static void on_accept(void *user, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct http_server *h = user;
    connections_coming(h->connections);
    pthread_mutex_lock(&h->daemon_lock);
    bool added = MHD_add_connection(h->daemon, fd, addr, len) == MHD_YES;
    pthread_mutex_unlock(&h->daemon_lock);
    if (!added)
        connections_not_coming(h->connections);
}

/* ---- life ---- */

static void log_mhd(void *user, const char *fmt, va_list args)
{
    char line[256];
    vsnprintf(line, sizeof(line), fmt, args);
    line[strcspn(line, "\n")] = 0;
    log_write(user, library_errors_note(line) ? LOG_INFO : LOG_DEBUG, NULL, "http: %s", line);
}

/* A PEM file as the NUL-terminated text that the library wants. */
static int read_pem(const char *path, char **ret, struct err *err)
{
    struct mapfile m;
    int r = mapfile_open(&m, path, err);
    if (r < 0)
        return r;
    char *s = malloc(m.len + 1);
    if (s && m.len)
        memcpy(s, m.data, m.len);
    if (s)
        s[m.len] = 0;
    mapfile_close(&m);
    *ret = s;
    return s ? 0 : err_set(err, ERR_NOMEM, "no memory for %s", path);
}

static int start_daemon(struct http_server *h, const char *cert, const char *key, struct MHD_Daemon **ret, struct err *err)
{
    const char *priorities = "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1";
    unsigned flags = MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC |
                     MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ERROR_LOG | (cert ? MHD_USE_TLS : 0);
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)cert},
                                   {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key},
                                   {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)priorities},
                                   {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    bool forgives = library_version_forgives();
    /* the logger comes first, so that it hears what the other options have to say */
    *ret = MHD_start_daemon(flags, 0, NULL, NULL, exchange_on_request, h, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, h->o.log,
                            MHD_OPTION_NOTIFY_COMPLETED, exchange_on_completed, h, MHD_OPTION_NOTIFY_CONNECTION, on_connection, h,
                            MHD_OPTION_URI_LOG_CALLBACK, exchange_on_line, h, forgives ? MHD_OPTION_STRICT_FOR_CLIENT : OPTION_DISCIPLINE,
                            forgives ? 0 : 2, MHD_OPTION_CONNECTION_LIMIT, LIBRARY_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                            (size_t)CONNECTION_MEMORY, MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK, MHD_OPTION_ARRAY,
                            cert ? tls : none, MHD_OPTION_END);
    if (*ret)
        return 0;
    return cert ? err_field(err, ERR_INVALID, "tls-cert", "--tls-cert %s and --tls-key %s are not a usable PEM pair", h->o.tls_cert_file,
                            h->o.tls_key_file)
                : err_set(err, ERR_IO, "the HTTP server did not start on port %d", http_port(h));
}

static int open_daemon(struct http_server *h, struct MHD_Daemon **ret, struct err *err)
{
    char *cert = NULL, *key = NULL;
    int r = 0;
    if (h->o.tls_cert_file) {
        r = MHD_is_feature_supported(MHD_FEATURE_TLS) == MHD_YES
                ? read_pem(h->o.tls_cert_file, &cert, err)
                : err_field(err, ERR_UNSUPPORTED, "tls-cert", "--tls-cert: this libmicrohttpd was built without TLS");
        if (r >= 0)
            r = read_pem(h->o.tls_key_file, &key, err);
    }
    if (r >= 0)
        r = start_daemon(h, cert, key, ret, err);
    free(cert);
    free(key);
    return r;
}

int http_start(struct http_server *h, struct err *err)
{
    static const struct listener_events events = {on_room_asked, on_short_of_descriptors, on_accept};
    library_errors_write_with(h->o.write_error);
    log_info(h->o.log, "http: requests are read by libmicrohttpd %s", MHD_get_version());
    int r = open_daemon(h, &h->daemon, err);
    return r < 0 ? r : listener_start(h->listener, &events, h, err);
}

/* The place for one more older daemon; those without connections are stopped. NULL: all have some. */
static struct MHD_Daemon **older_place(struct http_server *h)
{
    struct MHD_Daemon **place = NULL;
    for (int i = 0; i < HTTP_OLDER_MAX; i++) {
        const union MHD_DaemonInfo *n = h->older[i] ? MHD_get_daemon_info(h->older[i], MHD_DAEMON_INFO_CURRENT_CONNECTIONS) : NULL;
        if (n && n->num_connections == 0) {
            MHD_stop_daemon(h->older[i]);
            h->older[i] = NULL;
        }
        place = h->older[i] ? place : &h->older[i];
    }
    return place;
}

int http_reload(struct http_server *h, struct err *err)
{
    struct MHD_Daemon *fresh = NULL, **place;
    if (!h->o.tls_cert_file)
        return 0;
    if (!(place = older_place(h)))
        return err_set(err, ERR_BUSY, "connections of %d older certificates are still open", HTTP_OLDER_MAX);
    int r = open_daemon(h, &fresh, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&h->daemon_lock);
    *place = h->daemon;
    h->daemon = fresh;
    pthread_mutex_unlock(&h->daemon_lock);
    connections_retire(h->connections);
    return 0;
}

void http_stop_accepting(struct http_server *h)
{
    atomic_store(&h->stopping, true);
    listener_stop(h->listener);
    if (!atomic_load(&h->in_flight))
        (void)!write(h->idle, &(uint64_t){1}, sizeof(uint64_t));
}

void http_close(struct http_server *h)
{
    if (!h)
        return;
    if (h->listener)
        http_stop_accepting(h);
    if (h->connections && h->watcher)
        http_give_up(h);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    for (int i = 0; i < HTTP_OLDER_MAX; i++)
        if (h->older[i])
            MHD_stop_daemon(h->older[i]);
    connections_close(h->connections);
    watcher_close(h->watcher);
    listener_close(h->listener);
    if (h->idle >= 0)
        close(h->idle);
    pthread_mutex_destroy(&h->daemon_lock);
    free(h);
}
