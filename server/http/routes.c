/* See routes.h. */
#include "server/http/routes.h"
#include "server/api/body.h"
#include "server/http/hosts.h"
#include <malloc.h>
#include <math.h>
#include <string.h>

#define REQUEST_ARENA (SIZE_MAX / 4)  /* the request's charge is the limit */
#define TRIM_BYTES ((size_t)32 << 20) /* requests that held more give memory back to the machine when they end */
#define RETRY_AFTER_S 2

static const char *const prompt[] = {"prompt", NULL}, *const pair[] = {"context", "continuations", NULL},
                         *const texts[] = {"text", "texts", NULL};

static const struct route table[] = {
    {"POST", "/v1/completions", api_completions, .has_body = true, .queued = true, .ids = prompt},
    {"POST", "/v1/chat/completions", api_chat_completions},
    {"POST", "/v1/loglikelihood", api_loglikelihood, .has_body = true, .queued = true, .ids = pair},
    {"POST", "/v1/loglikelihood_rolling", api_loglikelihood_rolling, .has_body = true, .queued = true, .ids = texts},
    {"POST", "/v1/routing", api_routing, .has_body = true, .queued = true, .ids = texts},
    {"POST", "/tokenize", api_tokenize, .quiet = true, .has_body = true},
    {"POST", "/detokenize", api_detokenize, .quiet = true, .has_body = true},
    {"GET", "/tokenizer_info", api_tokenizer_info},
    {"GET", "/v1/models", api_models},
    {"GET", "/v1/models/", api_model},
    {"GET", "/health", api_health, .open = true, .quiet = true, .early = true},
    {"GET", "/ready", api_ready, .open = true, .quiet = true, .early = true},
    {"GET", "/metrics", api_metrics, .open = true, .quiet = true},
    {"GET", "/version", api_version},
    {"GET", "/openapi.json", api_openapi, .early = true},
    {"GET", "/", api_page, .open = true, .quiet = true, .early = true},
    {"GET", "/page/page.css", api_page, .open = true, .quiet = true, .early = true},
    {"GET", "/page/page.js", api_page, .open = true, .quiet = true, .early = true},
};
#define N_ROUTES (int)(sizeof(table) / sizeof(table[0]))
_Static_assert(sizeof(table) / sizeof(table[0]) < METRICS_ROUTES, "metrics.h has too few routes");

const struct route *routes_table(int *ret_n)
{
    *ret_n = N_ROUTES;
    return table;
}

static bool path_is(const struct route *r, const char *path)
{
    size_t n = strlen(r->path);
    return n > 1 && r->path[n - 1] == '/' ? !strncmp(r->path, path, n) && path[n] : !strcmp(r->path, path);
}

/* HEAD is answered as GET; the library leaves the body out. */
static int find(struct http_request *req, struct http_response *resp, const struct route **ret, struct err *err)
{
    const char *method = strcmp(req->method, "HEAD") ? req->method : "GET", *allow = NULL;
    for (int i = 0; i < N_ROUTES; i++) {
        if (!path_is(&table[i], req->path))
            continue;
        req->route = i;
        if (!strcmp(table[i].method, method)) {
            *ret = &table[i];
            return 0;
        }
        allow = strcmp(table[i].method, "GET") ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
    }
    if (!strcmp(req->path, "*"))
        allow = "GET, HEAD, POST, OPTIONS"; /* of the server as a whole */
    resp->allow = allow;
    if (allow && !strcmp(method, "OPTIONS")) {
        resp->status = 204;
        return 1;
    }
    if (allow)
        return err_set(err, ERR_METHOD, "%.32s is not allowed for %.100s; use %s", req->method, req->path, allow);
    return err_set(err, ERR_NOT_FOUND, "there is no %.100s here; /openapi.json lists what there is", req->path);
}

static int authorise(struct server *s, struct http_request *req, struct err *err)
{
    static const char scheme[] = "Bearer ";
    if (!keys_needed(s->settings->keys))
        return 0;
    const char *given = http_header(req, "Authorization");
    if (given && !strncasecmp(given, scheme, strlen(scheme)) && keys_find(s->settings->keys, given + strlen(scheme), req->client))
        return 0;
    return err_field(err, ERR_AUTH, "Authorization", "this server needs `Authorization: Bearer KEY`; the key is %s",
                     given ? "another" : "missing");
}

static int check_host(struct server *s, const struct http_request *req, struct err *err)
{
    if (hosts_allow(s->settings->allow_host, req->host))
        return 0;
    return err_field(err, ERR_FORBIDDEN, "Host",
                     "the request is meant for \"%.100s\", and this server answers for this machine alone; if that "
                     "is its name, say --allow-host %.100s",
                     req->host, req->host);
}

/* A page of any site can make a browser send these three, and bodies without a type, unasked. */
static int check_media_type(const struct http_request *req, struct err *err)
{
    static const char *const forms[] = {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"};
    const char *type = http_header(req, "Content-Type");
    bool form = !type && http_header(req, "Origin");
    for (size_t i = 0; type && i < sizeof(forms) / sizeof(forms[0]); i++)
        form |= !strncasecmp(type, forms[i], strlen(forms[i]));
    return form ? err_field(err, ERR_MEDIA_TYPE, "Content-Type",
                            "the body is JSON; send Content-Type: application/json (curl: --json), not %.60s", type ? type : "none")
                : 0;
}

/* All that can be said without the body. */
int routes_admit(void *user, struct http_request *req, struct err *err)
{
    struct server *s = user;
    struct http_response ignored = {0};
    const struct route *route = NULL;
    int r = check_host(s, req, err);
    req->wants_body = false;
    if (r >= 0)
        r = find(req, &ignored, &route, err);
    if (r != 0)
        return r < 0 ? r : 0;
    req->wants_body = route->has_body;
    if (!route->open)
        r = authorise(s, req, err);
    if (r >= 0 && !atomic_load(&s->loaded) && !route->early)
        r = err_set(err, ERR_BUSY, "the model is being loaded");
    if (r >= 0 && atomic_load(&s->draining) && route->has_body)
        r = err_set(err, ERR_DRAINING, "the server is shutting down");
    if (r >= 0 && route->has_body)
        r = check_media_type(req, err);
    if (r >= 0 && route->queued && engine_full(s->engine))
        r = err_set(err, ERR_BUSY, "the queue is full");
    if (r >= 0 && !route->open && !http_take_place(req))
        r = err_set(err, ERR_BUSY, "all connections are in use, and as many wait as may");
    return r;
}

static int run_handler(struct call *c, const struct err *body_error, struct err *err)
{
    const struct route *route = NULL;
    int r = c->req->malformed ? 0 : find(c->req, c->resp, &route, err);
    if (body_error) {
        *err = *body_error;
        return err->code;
    }
    if (r != 0)
        return r;
    if (route->has_body)
        r = body_parse(c, route->ids, err);
    if (r >= 0)
        r = route->handler(c, err);
    return r == ERR_NOMEM && c->req->charge.refused ? charge_error(&c->req->charge, err) : r;
}

static void fail(struct call *c, struct err *err, int code)
{
    if (!err->code)
        err_set(err, code, "%s", err_name(code));
    c->resp->status = err_http_status(err->code);
    c->resp->content_type = NULL;
    c->resp->retry_after_s = c->resp->status == 503 ? RETRY_AFTER_S : 0;
    c->resp->stream = (struct http_stream){0};
    c->resp->close = err->code == ERR_DRAINING;
    buf_clear(&c->resp->body);
    api_write_error(&c->resp->body, err);
    log_write(c->server->log, c->resp->status >= 500 ? LOG_ERROR : LOG_INFO, c->req->id, "%s %.100s: %s: %s", c->req->method, c->req->path,
              err_name(err->code), err->text);
}

static uint64_t client_of(const struct server *s, const struct http_request *req)
{
    struct client_address peer;
    http_peer(req, peer.bytes);
    const char *forwarded = s->settings->proxies.n ? http_last_header(req, "X-Forwarded-For") : NULL;
    struct client_address a = client_address_of(&s->settings->proxies, &peer, forwarded);
    return client_id(req->client, &a);
}

void routes_handle(void *user, struct http_request *req, const struct err *body_error, struct http_response *resp)
{
    struct call c = {.server = user, .req = req, .resp = resp, .client = client_of(user, req)};
    struct err err = {0};
    arena_init(&c.arena, REQUEST_ARENA);
    c.arena.charge = &req->charge;
    resp->status = 200;
    int r = run_handler(&c, body_error, &err);
    if (r < 0)
        fail(&c, &err, r);
    json_decref(c.body);
    arena_done(&c.arena);
}

/* One line a request; tokens and rows are those of answers that were written. */
static void log_access(struct server *s, const struct http_request *req, int status, double seconds, bool sent, bool quiet)
{
    struct log_field fields[8] = {{"method", req->method},
                                  {"path", req->path},
                                  {"status", NULL, status},
                                  {"duration_ms", NULL, round(1e6 * seconds) / 1e3},
                                  {"tokens", NULL, (double)req->tokens},
                                  {"rows", NULL, (double)req->rows}};
    int n = 6;
    if (*req->client)
        fields[n++] = (struct log_field){"client", req->client};
    if (!sent)
        fields[n++] = (struct log_field){"sent", "partly"};
    log_fields(s->log, quiet ? LOG_DEBUG : LOG_INFO, req->id, "request", fields, n);
}

void routes_finished(void *user, const struct http_request *req, int status, double seconds, bool sent)
{
    struct server *s = user;
    bool quiet = req->route >= 0 && table[req->route].quiet;
    if (req->charge.peak > TRIM_BYTES)
        malloc_trim(0);
    metrics_count(&s->metrics, req->route, status, seconds);
    log_access(s, req, status, seconds, sent, quiet);
}
