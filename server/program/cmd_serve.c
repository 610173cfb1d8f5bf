/* dtrnet serve: the life of the server. The port is bound before the model is loaded, so that a taken port is told at once.
 *
 * SIGTERM or SIGINT: /ready says 503, no connection is accepted, what is in flight is finished, exit 0. A second signal gives up
 * what is in flight. */
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"
#include "server/http/routes.h"
#include "server/program/commands.h"
#include "server/program/settings.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* A descriptor that SIGTERM and SIGINT are read from. */
static int take_signals(struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    int fd =
        pthread_sigmask(SIG_BLOCK, &set, NULL) ? -1 : signalfd(-1, &set, SFD_CLOEXEC); /* before any thread starts; they inherit the mask */
    return fd < 0 ? err_set(err, ERR_INTERNAL, "cannot take signals: %s", strerror(errno)) : fd;
}

/* True when a signal has come, false when `other` can be read (-1: waits for a signal alone). */
static bool wait_for_signal(int signals, int other)
{
    struct pollfd p[] = {{.fd = signals, .events = POLLIN}, {.fd = other, .events = POLLIN}};
    struct signalfd_siginfo ignored;
    while (poll(p, 2, -1) < 0)
        ;
    return p[0].revents && read(signals, &ignored, sizeof(ignored)) > 0;
}

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
    bool local = !strncmp(o->host, "127.", 4) || !strcmp(o->host, "::1") || !strcmp(o->host, "localhost");
    if (!local && !o->api_key && !o->api_key_file)
        log_warn(log, "%s can be reached from the network, and no key is needed; see --api-key-file", o->host);
}

/* struct server is not there yet when the port is bound; requests come only after it is. */
struct front {
    struct server *server;
};

static int admit(void *user, struct http_request *req, struct err *err)
{
    return routes_admit(((struct front *)user)->server, req, err);
}

static void handle(void *user, struct http_request *req, const struct err *body_error, struct http_response *resp)
{
    routes_handle(((struct front *)user)->server, req, body_error, resp);
}

static void finished(void *user, const struct http_request *req, int status, double seconds)
{
    routes_finished(((struct front *)user)->server, req, status, seconds);
}

static int listen_on(const struct options *o, struct log *log, struct front *front, struct http_server **ret, struct err *err)
{
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
        .log = log,
        .admit = admit,
        .handle = handle,
        .finished = finished,
        .user = front,
    };
    return http_listen(&h, ret, err);
}

static void say_ready(const struct options *o, const struct server *s, const struct http_server *h)
{
    const struct engine_info *i = s->info;
    const char *host = o->host;
    bool six = strchr(host, ':') != NULL;
    log_info(s->log, "%s: %s, %d layers, %s on %s with %d threads, max_model_len %d, %zu KV rows of %zu bytes", s->model_name,
             layer_plan_family(i->plan, i->config->n_layers), i->config->n_layers, i->dtype, i->device, i->n_threads, i->max_model_len,
             i->kv_rows_total, i->kv_row_bytes);
    log_info(s->log, "listening on %s://%s%s%s:%d", o->tls_cert ? "https" : "http", six ? "[" : "", host, six ? "]" : "", http_port(h));
}

static void drain(struct server *s, struct http_server *h, int signals)
{
    int in_flight = http_in_flight(h);
    atomic_store(&s->stopping, true);
    http_stop_accepting(h);
    log_info(s->log, "stopping; %d requests in flight", in_flight);
    while (wait_for_signal(signals, http_idle_fd(h))) {
        log_warn(s->log, "giving up %d requests in flight", http_in_flight(h));
        http_give_up(h);
    }
    engine_drain(s->engine);
}

static int serve(struct options *o, struct arena *arena, struct log *log, struct err *err)
{
    struct server_settings settings;
    struct keys *keys = NULL;
    struct front front = {0};
    struct http_server *http = NULL;
    int r = take_signals(err), signals = r;
    raise_descriptor_limit(o, log);
    warn_if_open(o, log);
    if (r >= 0)
        r = keys_open(o->api_key, o->api_key_file, log, &keys, err);
    if (r >= 0)
        r = listen_on(o, log, &front, &http, err);
    if (r >= 0)
        r = settings_open_server(o, keys, arena, log, &settings, &front.server, err);
    if (r >= 0)
        r = http_start(http, err);
    if (r >= 0) {
        say_ready(o, front.server, http);
        wait_for_signal(signals, -1);
        drain(front.server, http, signals);
        log_info(log, "stopped");
    }
    http_close(http);
    server_close(front.server);
    keys_close(keys);
    if (signals >= 0)
        close(signals);
    return r < 0 ? r : 0;
}

int cmd_serve(int argc, char **argv)
{
    return command_run(COMMAND_SERVE, "answer lm-evaluation-harness and OpenAI clients over HTTP", argc, argv, serve);
}
