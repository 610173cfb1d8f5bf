/* The questions of bench_score through a real listener: a server of this process on a free port of the loopback, and as many threads with a
 * connection each as --connections says. Bodies are made before the clock starts. They are text where the model has a tokenizer, so that
 * tokenising is part of it, and ids where it has none.
 *
 * Two rows: /v1/loglikelihood with a context and its continuations in one request, as our plugin groups them, and /v1/completions with one echoed
 * prompt a request, as the harness's local-completions sends them. */
#include "server/bench/bench.h"
#include "server/bench/bench_client.h"
#include "server/http/routes.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONTEXTS = 64, MAX_WORDS = 4096 };
#define REQUEST_MAX ((size_t)1 << 20)

struct http_bench {
    struct bench *b;
    int context_len;          /* tokens, or words */
    int32_t words[MAX_WORDS]; /* ids that begin a word of letters */
    int n_words;              /* 0: ids are sent */
    struct buf *requests;     /* [n], whole POSTs */
    int n, port;
    atomic_int next;
};

struct connection {
    struct http_bench *h;
    struct bench_client client;
    pthread_t thread;
    bool opened, started;
    int code;
    struct err err;
};

/* What one run took; rows: positions computed. */
struct http_run {
    double wall, cpu, engine, rows;
};

/* ---- bodies ---- */

static bool is_word(const char *s, size_t len)
{
    for (size_t i = 1; i < len; i++)
        if (s[i] < 'a' || s[i] > 'z')
            return false;
    return len > 2 && s[0] == ' ';
}

static void collect_words(struct http_bench *h)
{
    const struct tokenizer *t = h->b->server->tokenizer;
    int vocab = h->b->info->config->vocab, n = t ? tokenizer_vocab_size(t) : 0;
    for (int id = 0; id < n && id < vocab && h->n_words < MAX_WORDS; id++) {
        size_t len;
        const char *s = tokenizer_token_string(t, id, false, &len);
        if (is_word(s, len))
            h->words[h->n_words++] = id;
    }
}

/* `n` random tokens: appended to `text` if there are words, else as ids with commas between. */
static int add_tokens(struct http_bench *h, int n, bool first, struct buf *text)
{
    int r = 0;
    for (int i = 0; i < n && r >= 0; i++, first = false) {
        uint64_t x = bench_random(h->b);
        size_t len;
        if (h->n_words) {
            const char *s = tokenizer_token_string(h->b->server->tokenizer, h->words[x % (uint64_t)h->n_words], first, &len);
            r = buf_append(text, s, len);
        } else
            r = buf_printf(text, "%s%d", text->len ? "," : "", (int)(x % (uint64_t)h->b->info->config->vocab));
    }
    return r;
}

static void write_tokens(const struct http_bench *h, struct writer *w, const struct buf *text)
{
    if (h->n_words) {
        writer_string(w, text->data, text->len);
        return;
    }
    writer_open(w, '[');
    writer_raw(w, text->data, text->len);
    writer_close(w, ']');
}

static void write_score_body(const struct http_bench *h, const struct buf *context, const struct buf *continuations, struct writer *w)
{
    writer_open(w, '{');
    writer_key(w, "requests");
    writer_open(w, '[');
    writer_open(w, '{');
    writer_key(w, "context");
    write_tokens(h, w, context);
    writer_key(w, "continuations");
    writer_open(w, '[');
    for (int i = 0; i < BENCH_CONTINUATIONS; i++)
        write_tokens(h, w, &continuations[i]);
    writer_close(w, ']');
    writer_close(w, '}');
    writer_close(w, ']');
    writer_close(w, '}');
}

static void write_echo_body(const struct http_bench *h, const struct buf *prompt, struct writer *w)
{
    writer_open(w, '{');
    writer_key(w, "prompt");
    write_tokens(h, w, prompt);
    writer_key_int(w, "max_tokens", 1);
    writer_key_int(w, "temperature", 0);
    writer_key_int(w, "logprobs", 1);
    writer_key(w, "echo");
    writer_bool(w, true);
    writer_close(w, '}');
}

static int add_request(struct http_bench *h, const char *path, struct writer *w, struct err *err)
{
    struct buf *request = &h->requests[h->n];
    buf_init(request, REQUEST_MAX);
    if (w->code < 0)
        return err_set(err, w->code, "no memory for a request");
    h->n++;
    return bench_client_compose(path, w->buf, request, err);
}

static int echo_requests(struct http_bench *h, struct buf *context, const struct buf *continuations, struct buf *body, struct err *err)
{
    size_t len = context->len;
    int r = 0;
    for (int i = 0; i < BENCH_CONTINUATIONS && r >= 0; i++) {
        struct writer w = writer_on(body);
        buf_clear(body);
        r = h->n_words ? 0 : buf_append(context, ",", 1);
        if (r >= 0)
            r = buf_append(context, continuations[i].data, continuations[i].len);
        write_echo_body(h, context, &w);
        r = r < 0 ? err_set(err, r, "no memory for a request") : add_request(h, "/v1/completions", &w, err);
        context->len = len; /* the next one follows the same context */
    }
    return r;
}

/* One question, as one loglikelihood request or as a completions request for each continuation. */
static int question(struct http_bench *h, bool echo, struct err *err)
{
    struct buf context, continuations[BENCH_CONTINUATIONS], body;
    buf_init(&context, REQUEST_MAX);
    buf_init(&body, REQUEST_MAX);
    int r = add_tokens(h, h->context_len, true, &context);
    for (int i = 0; i < BENCH_CONTINUATIONS; i++) {
        buf_init(&continuations[i], REQUEST_MAX);
        r = r < 0 ? r : add_tokens(h, BENCH_CONTINUATION, false, &continuations[i]);
    }
    struct writer w = writer_on(&body);
    if (r < 0) {
        err_set(err, r, "no memory for a question");
    } else if (echo) {
        r = echo_requests(h, &context, continuations, &body, err);
    } else {
        write_score_body(h, &context, continuations, &w);
        r = add_request(h, "/v1/loglikelihood", &w, err);
    }
    for (int i = 0; i < BENCH_CONTINUATIONS; i++)
        buf_done(&continuations[i]);
    buf_done(&context);
    buf_done(&body);
    return r;
}

static int make_requests(struct http_bench *h, bool echo, struct err *err)
{
    int r = 0;
    h->n = 0;
    h->requests = calloc((size_t)CONTEXTS * BENCH_CONTINUATIONS, sizeof(*h->requests));
    if (!h->requests)
        return err_set(err, ERR_NOMEM, "no memory for the requests");
    for (int i = 0; i < CONTEXTS && r >= 0; i++)
        r = question(h, echo, err);
    return r;
}

static void free_requests(struct http_bench *h)
{
    for (int i = 0; h->requests && i < h->n; i++)
        buf_done(&h->requests[i]);
    free(h->requests);
    h->requests = NULL;
}

/* ---- clients ---- */

static void *send_requests(void *arg)
{
    struct connection *c = arg;
    int i;
    while (c->code >= 0 && (i = atomic_fetch_add(&c->h->next, 1)) < c->h->n)
        c->code = bench_client_send(&c->client, &c->h->requests[i], &c->err);
    return NULL;
}

static int run_connections(struct http_bench *h, struct connection *c, int n, struct err *err)
{
    int r = 0;
    atomic_store(&h->next, 0);
    for (int i = 0; i < n && r >= 0; i++) {
        c[i].started = !pthread_create(&c[i].thread, NULL, send_requests, &c[i]);
        r = c[i].started ? 0 : err_set(err, ERR_NOMEM, "cannot start the thread of connection %d", i);
    }
    for (int i = 0; i < n; i++) {
        if (c[i].started)
            pthread_join(c[i].thread, NULL);
        c[i].started = false;
        if (r >= 0 && c[i].code < 0) {
            r = c[i].code;
            *err = c[i].err;
        }
    }
    return r;
}

/* Counters are read behind engine_cache_clear, when the worker has published its last step. */
static int run_once(struct http_bench *h, struct connection *c, int n, struct http_run *ret, struct err *err)
{
    struct engine_stats before, after;
    engine_cache_clear(h->b->engine);
    engine_stats(h->b->engine, &before);
    double wall = bench_seconds(), cpu = bench_cpu_seconds();
    int r = run_connections(h, c, n, err);
    ret->wall = bench_seconds() - wall;
    ret->cpu = bench_cpu_seconds() - cpu;
    engine_cache_clear(h->b->engine);
    engine_stats(h->b->engine, &after);
    ret->engine = after.busy_s - before.busy_s;
    ret->rows = (double)(after.rows_computed - before.rows_computed);
    return r;
}

/* ---- the rows ---- */

static int report(struct http_bench *h, const char *path, const struct http_run *runs, struct err *err)
{
    int n = h->b->o->repeats;
    double wall[BENCH_MAX_REPEATS], cpu[BENCH_MAX_REPEATS], engine[BENCH_MAX_REPEATS], outside[BENCH_MAX_REPEATS];
    for (int i = 0; i < n; i++) {
        wall[i] = runs[i].wall;
        cpu[i] = runs[i].cpu;
        engine[i] = runs[i].engine;
        outside[i] = runs[i].wall - runs[i].engine;
    }
    double s = bench_median(wall, n), inside = bench_median(engine, n), rest = bench_median(outside, n), mid_cpu = bench_median(cpu, n);
    double rows = runs[n - 1].rows;
    if (!h->b->o->json)
        printf("http %-18s %4d requests, %d connections  %8.4f s  %8.1f requests/s  %10.1f unique tokens/s  %8.4f s in the engine, %.4f "
               "outside  %8.4f s of CPU\n",
               path, h->n, h->b->o->connections, s, h->n / s, rows / s, inside, rest, mid_cpu);
    json_t *row =
        json_pack("{s:s, s:s, s:i, s:i, s:b, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "workload", "http", "path", path, "requests", h->n,
                  "connections", h->b->o->connections, "text", h->n_words > 0, "seconds", s, "requests_per_s", h->n / s, "tokens", rows,
                  "tokens_per_s", rows / s, "engine_seconds", inside, "outside_seconds", rest, "cpu_seconds", mid_cpu);
    return bench_add_row(h->b, row, err);
}

static int bench_path(struct http_bench *h, bool echo, struct connection *c, int n, struct err *err)
{
    struct http_run runs[BENCH_MAX_REPEATS];
    int r = make_requests(h, echo, err);
    for (int i = -1; i < h->b->o->repeats && r >= 0; i++) /* the first run warms up */
        r = run_once(h, c, n, &runs[i < 0 ? 0 : i], err);
    if (r >= 0)
        r = report(h, echo ? "/v1/completions" : "/v1/loglikelihood", runs, err);
    free_requests(h);
    return r;
}

static int with_connections(struct http_bench *h, struct err *err)
{
    int n = h->b->o->connections, r = 0;
    struct connection *c = calloc((size_t)n, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for %d connections", n);
    for (int i = 0; i < n && r >= 0; i++) {
        c[i].h = h;
        r = bench_client_open(h->port, &c[i].client, err);
        c[i].opened = r >= 0;
    }
    for (int echo = 0; echo < 2 && r >= 0; echo++)
        r = bench_path(h, echo, c, n, err);
    for (int i = 0; i < n; i++)
        if (c[i].opened)
            bench_client_close(&c[i].client);
    free(c);
    return r;
}

/* The access log would be a line a request. */
static void finished(void *user, const struct http_request *req, int status, double seconds, bool sent) {}

int bench_http(struct bench *b, struct err *err)
{
    struct http_server *server = NULL;
    struct http_bench *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(err, ERR_NOMEM, "no memory for the HTTP workload");
    h->b = b;
    h->context_len = BENCH_CONTEXT < b->info->max_model_len / 2 ? BENCH_CONTEXT : b->info->max_model_len / 2;
    collect_words(h);
    struct http_options o = {.host = "127.0.0.1",
                             .max_connections = b->o->connections,
                             .header_timeout_s = 3600,
                             .idle_timeout_s = 3600,
                             .period_s = 3600,
                             .max_body_bytes = REQUEST_MAX,
                             .log = b->server->log,
                             .handle = routes_handle,
                             .finished = finished,
                             .user = b->server};
    int r = http_listen(&o, &server, err);
    if (r >= 0)
        r = http_start(server, err);
    if (r >= 0) {
        h->port = http_port(server);
        r = with_connections(h, err);
        http_stop_accepting(server);
    }
    http_close(server);
    free(h);
    return r;
}
