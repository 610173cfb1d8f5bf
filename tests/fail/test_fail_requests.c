/* Requests of every kind over real connections to one server, the engine a double: each call of failing_own.h and each allocation of
 * answering fails once. The answer is the usual one, byte for byte in length, or an error with a sentence, or the connection ends; never half an
 * answer that looks whole. Nothing stays allocated or charged, and nobody waits for ever. */
#include "server/http/routes.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/fail/failing_own.h"
#include "tests/unit/fake_engine.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define PATIENCE_S 120
#define LIMIT 5000
#define EACH 150 /* allocations of a request that all fail; of those behind them one in SOME */
#define SOME 997
#define ANSWER_MAX (4 << 20)
#define LONG_TEXT 24000 /* ids, whose logprobs are more than is sent whole */

#define GZIP "Accept-Encoding: gzip\r\n"
#define PAGE "Origin: http://a.example\r\nAccess-Control-Request-Private-Network: true\r\n"

static const struct request {
    const char *name, *line, *headers, *body;
    int status;
    bool varies; /* its length may differ from one answer to the next */
} requests[] = {
    {"health", "GET /health", "", NULL, 200},
    {"ready", "GET /ready", "", NULL, 200},
    {"metrics", "GET /metrics", GZIP, NULL, 200, true},
    {"version", "GET /version", PAGE, NULL, 200},
    {"openapi", "GET /openapi.json", GZIP, NULL, 200},
    {"page", "GET /", "", NULL, 200},
    {"style", "GET /page/page.css", GZIP, NULL, 200},
    {"models", "GET /v1/models", "", NULL, 200},
    {"model", "GET /v1/models/double", "", NULL, 200},
    {"another model", "GET /v1/models/other", "", NULL, 404},
    {"tokenizer_info", "GET /tokenizer_info", "", NULL, 200},
    {"head", "HEAD /health", "", NULL, 200},
    {"options", "OPTIONS /tokenize", PAGE, NULL, 204},
    {"nothing there", "GET /nothing", "", NULL, 404},
    {"method", "GET /tokenize", "", NULL, 405},
    {"chat", "POST /v1/chat/completions", "", "{}", 400},
    {"form", "POST /tokenize", "Content-Type: text/plain\r\n", "{}", 415},
    {"coding", "POST /tokenize", "Content-Encoding: br\r\n", "{}", 400},
    {"no JSON", "POST /tokenize", "", "{\"prompt\": ", 400},
    {"no object", "POST /tokenize", "", "[1]", 400},
    {"tokenize", "POST /tokenize", "", "{\"prompt\": \"The old man walked to the river.\"}", 200},
    {"detokenize", "POST /detokenize", "", "{\"tokens\": [5, 6, 7]}", 200},
    {"completion", "POST /v1/completions", GZIP, "{\"prompt\": [[5, 6], [7]], \"max_tokens\": 3, \"logprobs\": 2, \"echo\": true}", 200},
    {"text", "POST /v1/completions", PAGE "Content-Type: application/json\r\n",
     "{\"prompt\": [\"<s>\", \"</s>\"], \"max_tokens\": 3, \"stop\": \"zzz\", \"seen\": 1}", 200},
    {"stream", "POST /v1/completions", GZIP, "{\"prompt\": [5, 6], \"max_tokens\": 3, \"stream\": true, \"logprobs\": 1}", 200,
     .varies = true},
    {"loglikelihood", "POST /v1/loglikelihood", "",
     "{\"requests\": [{\"context\": [5, 6], \"continuations\": [[7], [8, 9]]}, {\"context\": \"<s>\", \"continuations\": [\"</s>\"]}]}",
     200},
    {"rolling", "POST /v1/loglikelihood_rolling", "", "{\"texts\": [[5, 6, 7, 8], \"<s>\"], \"bucket_edges\": [0, 2], \"routing\": true}",
     200},
    {"routing", "POST /v1/routing", "", "{\"text\": [5, 6, 7], \"top_logprobs\": 2}", 200},
    {"bad field", "POST /v1/completions", "", "{\"prompt\": [5], \"max_tokens\": -1}", 400},
    {"long", "POST /v1/loglikelihood_rolling", "", NULL, 200}, /* body: long_body */
    {"long, compressed", "POST /v1/loglikelihood_rolling", GZIP, NULL, 200},
};
#define N_REQUESTS (sizeof(requests) / sizeof(requests[0]))

static char long_body[4 * LONG_TEXT + 100];
static struct budget budget;
static struct server_settings settings = {.tokenizer_info = true, .budget = &budget};
static struct server server = FAKE_SERVER(&settings);

static const char *body_of(const struct request *q)
{
    return strncmp(q->name, "long", 4) ? q->body : long_body;
}

static bool over(time_t until)
{
    struct timespec pause = {.tv_nsec = 200000};
    nanosleep(&pause, NULL);
    return time(NULL) > until;
}

/* ---- the client ---- */

struct answer {
    int status;   /* 0: the connection ended without one */
    bool whole;   /* all of it came */
    bool gzipped; /* and was decompressed */
    size_t len;   /* of the body */
    char *body;   /* in `bytes` */
};

static char bytes[2 * ANSWER_MAX];

static bool send_all(int fd, const char *s, size_t n)
{
    for (ssize_t k; n; s += k, n -= (size_t)k)
        if ((k = send(fd, s, n, MSG_NOSIGNAL)) <= 0)
            return false;
    return true;
}

/* Bytes of what came, -1 if the server neither answered nor ended the connection. */
static ssize_t exchange(int port, const struct request *q, char *got, size_t max)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    const char *body = body_of(q);
    char head[512];
    size_t n = 0;
    ssize_t k = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0),
        len = snprintf(head, sizeof(head), "%s HTTP/1.1\r\nHost: x\r\nX-Request-Id: r\r\nConnection: close\r\n%s", q->line, q->headers);
    len += body ? snprintf(head + len, sizeof(head) - (size_t)len, "Content-Length: %zu\r\n\r\n", strlen(body))
                : snprintf(head + len, sizeof(head) - (size_t)len, "\r\n");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (!connect(fd, (struct sockaddr *)&to, sizeof(to)) && send_all(fd, head, (size_t)len) && (!body || send_all(fd, body, strlen(body))))
        while (n < max && (k = recv(fd, got + n, max - n, 0)) > 0)
            n += (size_t)k;
    bool waits = k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    close(fd);
    return waits ? -1 : (ssize_t)n;
}

/* Joins the chunks in place; false: the last one is missing. */
static bool join_chunks(char *s, size_t *len)
{
    char *end = s + *len, *to = s;
    for (char *p = s, *behind; p < end; p = behind + 2) {
        size_t n = strtoul(p, &behind, 16);
        if (n == 0 || behind + 2 + n + 2 > end) {
            *len = (size_t)(to - s);
            return n == 0;
        }
        memmove(to, behind + 2, n);
        to += n;
        behind += 2 + n;
    }
    *len = (size_t)(to - s);
    return false;
}

static bool inflate_body(struct answer *a, char *to, size_t max)
{
    z_stream z = {
        .next_in = (unsigned char *)a->body, .avail_in = (unsigned)a->len, .next_out = (unsigned char *)to, .avail_out = (unsigned)max};
    bool ok = inflateInit2(&z, 31) == Z_OK && inflate(&z, Z_FINISH) == Z_STREAM_END;
    inflateEnd(&z);
    a->body = to;
    a->len = z.total_out;
    return ok;
}

static struct answer read_answer(char *got, size_t n, bool head_only)
{
    struct answer a = {0};
    char *end = memmem(got, n, "\r\n\r\n", 4), *length;
    if (n < 12 || strncmp(got, "HTTP/1.1 ", 9) || !end)
        return a;
    *end = 0;
    a.status = atoi(got + 9);
    a.body = end + 4;
    a.len = n - (size_t)(a.body - got);
    length = strcasestr(got, "\r\ncontent-length:");
    if (strcasestr(got, "\r\ntransfer-encoding: chunked"))
        a.whole = join_chunks(a.body, &a.len);
    else
        a.whole = head_only || a.status == 204 || (length && a.len == strtoul(length + 17, NULL, 10));
    a.gzipped = a.whole && strcasestr(got, "\r\ncontent-encoding: gzip");
    return a;
}

/* ---- what must hold ---- */

static bool has_sentence(const struct answer *a)
{
    json_t *v = json_loadb(a->body, a->len, 0, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(v, "error"), "message"));
    bool ok = message && *message;
    json_decref(v);
    return ok || a->len == 0; /* the sentence itself may be what there was no memory for */
}

static bool ends_well(const struct request *q, const struct answer *a, size_t usual_len)
{
    if (a->status == 0 || !a->whole)
        return true; /* the client sees that it has no answer */
    if (a->status >= 400)
        return has_sentence(a);
    if (a->status != q->status)
        return false;
    if (q->varies)
        return !strstr(q->body ? q->body : "", "stream") || a->len == usual_len || memmem(a->body, a->len, "\"error\"", 7);
    return a->len == usual_len;
}

/* Until the server holds no more than before, which is after the client saw the end. `live` may count a connection that was just ending; what is
 * left of one shows when the server has ended. */
static bool settles(struct http_server *h, long live)
{
    time_t until = time(NULL) + PATIENCE_S;
    while (failing_live() > live || atomic_load(&budget.used) || http_in_flight(h))
        if (over(until))
            return CHECK_INT(failing_live(), live) & CHECK_INT(atomic_load(&budget.used), 0) & CHECK_INT(http_in_flight(h), 0);
    return true;
}

static struct answer ask(struct http_server *h, const struct request *q)
{
    ssize_t n = exchange(http_port(h), q, bytes, ANSWER_MAX - 1);
    if (!CHECK(n >= 0))
        fprintf(stderr, "  %s: neither answer nor end\n", q->name);
    bytes[n > 0 ? n : 0] = 0;
    struct answer a = read_answer(bytes, n > 0 ? (size_t)n : 0, !strncmp(q->line, "HEAD", 4));
    if (a.gzipped)
        a.whole = CHECK(inflate_body(&a, bytes + ANSWER_MAX, ANSWER_MAX));
    return a;
}

/* Fails number n of the plan; false when there were not so many. */
static bool fail_at(struct http_server *h, const struct request *q, size_t usual_len, long live, void (*plan)(long n), long n)
{
    plan(n);
    struct answer a = ask(h, q);
    const char *own = plan == failing_own_plan ? failing_own_reached() : NULL;
    bool reached = own || (plan == failing_plan && failing_reached());
    bool ok = CHECK(ends_well(q, &a, usual_len)) && CHECK(reached || (a.whole && a.status == q->status));
    ok &= settles(h, live);
    if (!ok)
        fprintf(stderr, "  %s, %s %ld: status %d, %s, %zu bytes of %zu: %.300s\n", q->name, own ? own : "allocation", n, a.status,
                a.whole ? "whole" : "not whole", a.len, usual_len, a.body ? a.body : "");
    return reached && ok;
}

static long fail_request(struct http_server *h, const struct request *q)
{
    struct answer usual = {0};
    long own = 0, n = 0;
    for (int i = 0; i < 2; i++) /* what is kept from the first requests is there */
        usual = ask(h, q);
    if (!CHECK(usual.whole) || !CHECK_INT(usual.status, q->status))
        fprintf(stderr, "  %s without failures: %.300s\n", q->name, usual.body ? usual.body : "");
    long live = failing_live();
    while (own < LIMIT && fail_at(h, q, usual.len, live, failing_own_plan, own))
        own++;
    for (long at = 0; fail_at(h, q, usual.len, live, failing_plan, at); n++)
        at += at < EACH ? 1 : SOME;
    return own + n;
}

static void write_long_body(void)
{
    size_t n = (size_t)sprintf(long_body, "{\"tokens\": true, \"text\": [5");
    for (int i = 1; i < LONG_TEXT; i++)
        n += (size_t)sprintf(long_body + n, ",%d", 3 + i % 7);
    sprintf(long_body + n, "]}");
}

int main(void)
{
    struct http_options o = {.host = "127.0.0.1",
                             .max_connections = 4,
                             .header_timeout_s = PATIENCE_S / 4,
                             .idle_timeout_s = PATIENCE_S / 4,
                             .period_s = PATIENCE_S / 4,
                             .max_body_bytes = 1 << 20,
                             .cors_origin = "*",
                             .gzip = HTTP_GZIP_ON,
                             .budget = &budget,
                             .write_error = api_write_error,
                             .admit = routes_admit,
                             .handle = routes_handle,
                             .finished = routes_finished,
                             .user = &server};
    struct err err = {0};
    struct http_server *h = NULL;
    long total = 0;
    failing_init();
    failing_spare_jansson();
    write_long_body();
    budget_init(&budget, 256 << 20);
    arena_init(&server.arena, 1 << 20);
    if (!CHECK_INT(tokenizer_open(MODEL_DIR, TOKENIZER_RULES_4, NULL, &server.tokenizer, &err), 0) ||
        !CHECK_INT(spellings_init(&server.spellings, server.tokenizer, FAKE_VOCAB, &err), 0) ||
        !CHECK(http_listen(&o, &h, &err) >= 0 && http_start(h, &err) >= 0))
        fprintf(stderr, "%s\n", err.text);
    for (size_t i = 0; i < N_REQUESTS && !check_failures; i++)
        total += fail_request(h, &requests[i]);
    printf("%ld calls and allocations failed, one at a time\n", total);
    CHECK(total > 500);
    http_close(h);
    spellings_done(&server.spellings);
    tokenizer_close(server.tokenizer);
    arena_done(&server.arena);
    CHECK_INT(failing_live(), 0);
    return check_result();
}
