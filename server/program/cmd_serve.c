/* dtrnet serve: the life of the server.
 *
 * The port is bound and probes are answered before the model is loaded, on a thread of its own, so that a taken port is told at once and a
 * signal ends loading. SIGTERM or SIGINT: /ready says 503, for --shutdown-delay all goes on, then no connection is accepted and what is in
 * flight has --drain-timeout to end; a second signal gives it up at once. SIGHUP reads keys and TLS files again and opens the log anew. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "server/api/names.h"
#include "server/http/hosts.h"
#include "server/http/routes.h"
#include "server/program/commands.h"
#include "server/program/settings.h"
#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define BURST_MIN 4     /* requests at a time after which memory is given back, once a quarter is left of them; */
#define CROWD_MIN 64    /* and connections, each of which holds some 30 KiB */
#define ARENAS_MAX 16   /* of glibc, else eight a core: what is free at the end of each cannot be given back */
#define GIVE_BACK_S 5   /* how often that is looked at */
#define GIVE_UP_MS 2000 /* how long those that were given up have to write so */

struct service {
    const struct options *o;
    struct log *log;
    struct server_settings settings;
    struct keys *keys;
    struct server *server;
    struct http_server *http;
    struct budget budget; /* of requests; none before the model is loaded */
    int burst, crowd;     /* the most requests, and connections, at a time since memory was given back */
    int signals;          /* what SIGTERM, SIGINT and SIGHUP are read from */
    /* loading */
    pthread_t loader;
    int loaded; /* eventfd: load_code is there */
    int load_code;
    struct err load_err;
};

/* ---- signals ---- */

static int take_signals(struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    /* before any thread starts; they inherit the mask */
    int fd = pthread_sigmask(SIG_BLOCK, &set, NULL) ? -1 : signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? err_set(err, ERR_INTERNAL, "cannot take signals: %s", strerror(errno)) : fd;
}

static void reload(struct service *s)
{
    struct err err;
    if (log_reopen(s->log, &err) < 0)
        log_error(s->log, "the log stays as it is: %s", err.text);
    if (keys_reload(s->keys, &err) < 0)
        log_error(s->log, "the keys stay as they are: %s", err.text);
    if (http_reload(s->http, &err) < 0)
        log_error(s->log, "the certificate stays as it is: %s", err.text);
    log_info(s->log, "SIGHUP: opened the log anew, read keys and TLS files again");
}

enum event { EVENT_STOP, EVENT_OTHER, EVENT_TIME };

static int left_ms(const struct timespec *until)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double ms = 1e3 * (double)(until->tv_sec - now.tv_sec) + 1e-6 * (double)(until->tv_nsec - now.tv_nsec);
    return ms > 0 ? (int)ms + 1 : 0;
}

/* Waits until a signal says stop, `other` can be read (-1: none), or seconds are over (< 0: never). Signals that say reload are obeyed. */
static enum event wait_for(struct service *s, int other, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    if (seconds >= 0) {
        until.tv_sec += (time_t)seconds;
        until.tv_nsec += (long)(1e9 * (seconds - (double)(time_t)seconds));
    }
    for (;;) {
        struct pollfd p[] = {{.fd = s->signals, .events = POLLIN}, {.fd = other, .events = POLLIN}};
        struct signalfd_siginfo got;
        int n = poll(p, 2, seconds < 0 ? -1 : left_ms(&until));
        while (read(s->signals, &got, sizeof(got)) == (ssize_t)sizeof(got)) {
            if (got.ssi_signo != SIGHUP)
                return EVENT_STOP;
            reload(s);
        }
        if (p[1].revents)
            return EVENT_OTHER;
        if (n == 0)
            return EVENT_TIME;
    }
}

/* ---- start ---- */

/* A connection is a descriptor; the usual soft limit of 1024 is below what --max-connections' default needs. */
static void raise_descriptor_limit(const struct options *o, struct log *log)
{
    struct rlimit lim;
    if (getrlimit(RLIMIT_NOFILE, &lim))
        return;
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
    if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < (rlim_t)o->max_connections + HTTP_OTHER_DESCRIPTORS)
        log_warn(log, "%llu file descriptors are allowed (ulimit -n); --max-connections %d needs %d", (unsigned long long)lim.rlim_cur,
                 o->max_connections, o->max_connections + HTTP_OTHER_DESCRIPTORS);
}

static void warn_if_open(const struct options *o, struct log *log)
{
    if (!hosts_is_loopback(o->host) && !o->api_key && !o->api_key_file)
        log_warn(log, "%s can be reached from the network, and no key is needed; see --api-key-file", o->host);
}

static int listen_on(struct service *s, struct err *err)
{
    const struct options *o = s->o;
    struct http_options h = {
        .host = o->host,
        .port = o->port,
        .tls_cert_file = o->tls_cert,
        .tls_key_file = o->tls_key,
        .max_connections = o->max_connections,
        .header_timeout_s = o->header_timeout_s,
        .idle_timeout_s = o->idle_timeout_s,
        .period_s = o->transfer_period_s,
        .min_rate = o->min_rate,
        .max_body_bytes = o->max_body_bytes,
        .cors_origin = o->cors_origin,
        .gzip = !strcmp(o->gzip, "on")   ? HTTP_GZIP_ON
                : strcmp(o->gzip, "off") ? HTTP_GZIP_AUTO
                                         : HTTP_GZIP_OFF,
        .budget = &s->budget,
        .log = s->log,
        .write_error = api_write_error,
        .admit = routes_admit,
        .handle = routes_handle,
        .finished = routes_finished,
        .user = s->server,
    };
    int r = http_listen(&h, &s->http, err);
    return r < 0 ? r : http_start(s->http, err);
}

/* "http://127.0.0.1:8000" */
static void address(const struct service *s, char *out, size_t size)
{
    bool six = strchr(s->o->host, ':') != NULL;
    snprintf(out, size, "%s://%s%s%s:%d", s->o->tls_cert ? "https" : "http", six ? "[" : "", s->o->host, six ? "]" : "",
             http_port(s->http));
}

static void *load(void *user)
{
    struct service *s = user;
    s->load_code = server_load(s->server, &s->load_err);
    names_as_flags(&s->load_err);
    (void)!write(s->loaded, &(uint64_t){1}, sizeof(uint64_t));
    return NULL;
}

/* A load cannot be broken off: the process ends around it. */
static void stop_loading(struct service *s)
{
    log_info(s->log, "stopped while the model was being loaded");
    _exit(EXIT_OK);
}

static int load_model(struct service *s, struct err *err)
{
    char where[128];
    address(s, where, sizeof(where));
    log_info(s->log, "loading %s; %s answers probes", s->settings.engine.model_dir, where);
    if (pthread_create(&s->loader, NULL, load, s))
        return err_set(err, ERR_NOMEM, "cannot start the thread that loads the model");
    if (wait_for(s, s->loaded, -1) == EVENT_STOP)
        stop_loading(s);
    pthread_join(s->loader, NULL);
    if (s->load_code < 0)
        *err = s->load_err;
    return s->load_code;
}

static void say_ready(const struct service *s)
{
    const struct engine_info *i = s->server->info;
    char where[128];
    address(s, where, sizeof(where));
    log_info(s->log, "%s: %s, %d layers, %s on %s with %d threads, max_model_len %d, %zu KV rows of %zu bytes", s->server->model_name,
             layer_plan_family(i->plan, i->config->n_layers), i->config->n_layers, i->dtype, i->device, i->n_threads, i->max_model_len,
             i->kv_rows_total, i->kv_row_bytes);
    log_info(s->log, "listening on %s", where);
}

/* ---- while it serves ---- */

/* What many requests or connections held at once is free when they have ended, but glibc keeps it, since blocks that are in use lie between. */
static void give_back(struct service *s)
{
    int requests = http_in_flight(s->http), burst = http_most_in_flight(s->http), crowd, connections = http_connections(s->http, &crowd);
    s->burst = burst > s->burst ? burst : s->burst;
    s->crowd = crowd > s->crowd ? crowd : s->crowd;
    if ((s->burst < BURST_MIN || requests > s->burst / 4) && (s->crowd < CROWD_MIN || connections > s->crowd / 4))
        return;
    malloc_trim(0);
    log_debug(s->log, "gave memory back after %d requests at a time on %d connections", s->burst, s->crowd);
    s->burst = requests;
    s->crowd = connections;
}

static void wait_for_stop(struct service *s)
{
    while (wait_for(s, -1, GIVE_BACK_S) == EVENT_TIME)
        give_back(s);
}

/* ---- stop ---- */

static void drain(struct service *s)
{
    log_info(s->log, "stopping; %d requests in flight", http_in_flight(s->http));
    atomic_store(&s->server->stopping, true);
    bool hurry = wait_for(s, -1, s->o->shutdown_delay_s) == EVENT_STOP;
    atomic_store(&s->server->draining, true);
    http_stop_accepting(s->http);
    if (hurry || wait_for(s, http_idle_fd(s->http), s->o->drain_timeout_s) != EVENT_OTHER) {
        log_warn(s->log, "giving up %d requests in flight", http_in_flight(s->http));
        http_give_up(s->http);
        wait_for(s, http_idle_fd(s->http), 1e-3 * GIVE_UP_MS);
    }
    engine_drain(s->server->engine);
}

/* ---- the whole ---- */

static int open_all(struct service *s, struct arena *arena, struct err *err)
{
    int r = keys_open(s->o->api_key, s->o->api_key_file, s->log, &s->keys, err);
    if (r >= 0)
        r = settings_of_server(s->o, s->keys, arena, s->log, &s->settings, err);
    s->settings.budget = &s->budget;
    if (r >= 0)
        r = server_new(&s->settings, &s->server, err);
    if (r >= 0)
        r = listen_on(s, err);
    s->loaded = r < 0 ? -1 : eventfd(0, EFD_CLOEXEC);
    if (r >= 0 && s->loaded < 0)
        r = err_set(err, ERR_IO, "cannot make an eventfd: %s", strerror(errno));
    return r < 0 ? r : load_model(s, err);
}

static int serve(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct service s = {.o = o, .log = log, .loaded = -1};
    mallopt(M_MMAP_THRESHOLD, 1 << 20); /* large blocks go back to the machine when they are freed */
    mallopt(M_ARENA_MAX, ARENAS_MAX);
    int r = s.signals = take_signals(err);
    raise_descriptor_limit(o, log);
    warn_if_open(o, log);
    if (r >= 0)
        r = open_all(&s, arena, err);
    if (r >= 0) {
        say_ready(&s);
        wait_for_stop(&s);
        drain(&s);
        log_info(log, "stopped");
    }
    http_close(s.http);
    server_close(s.server);
    keys_close(s.keys);
    if (s.loaded >= 0)
        close(s.loaded);
    if (s.signals >= 0)
        close(s.signals);
    return r < 0 ? r : 0;
}

int cmd_serve(int argc, char **argv)
{
    return command_run(COMMAND_SERVE, "answer lm-evaluation-harness and OpenAI clients over HTTP", argc, argv, serve);
}
