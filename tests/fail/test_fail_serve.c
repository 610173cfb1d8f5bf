/* Every fallible call to the system, and then every allocation of the HTTP side, fails once while a server opens a model, answers a request over
 * a real connection and ends. The server does not start and says why, or the client has an answer or the end of its connection; nobody waits for
 * ever, and no memory and no descriptor is left. */
#include "engine/tools/synth.h"
#include "server/http/routes.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/fail/failing_calls.h"
#include "tests/fail/failing_own.h"
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PATIENCE_S 120
#define LIMIT 20000

static char dir[96];

static int open_descriptors(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    closedir(d);
    return n;
}

/* ---- the client ---- */

/* The status of the answer, 0 if the connection ended without one, or -1: neither came. */
static int ask(int port)
{
    static const char body[] = "{\"requests\": [{\"context\": [1, 2, 3], \"continuations\": [[4], [5, 6]]}]}";
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    char text[512], got[4096];
    size_t n = 0;
    ssize_t k = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0),
        len =
            snprintf(text, sizeof(text), "POST /v1/loglikelihood HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
                     sizeof(body) - 1, body);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) || send(fd, text, (size_t)len, MSG_NOSIGNAL) != len)
        n = 0;
    else
        while (n < sizeof(got) - 1 && (k = recv(fd, got + n, sizeof(got) - 1 - n, 0)) > 0)
            n += (size_t)k;
    close(fd);
    got[n] = 0;
    return n > 12 && !strncmp(got, "HTTP/1.1 ", 9) ? atoi(got + 9) : k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? -1 : 0;
}

/* ---- the server ---- */

static struct server_settings settings(struct budget *budget)
{
    return (struct server_settings){.engine = {.model_dir = dir,
                                               .device = "cpu",
                                               .dtype = "f32",
                                               .n_threads = 2,
                                               .max_model_len = 32,
                                               .max_batch_tokens = 8,
                                               .kv_cache_bytes = 1 << 20,
                                               .prefix_cache = true,
                                               .bos_id = -1,
                                               .eos_id = -1},
                                    .budget = budget,
                                    .request_memory = 64 << 20};
}

/* Listens, asks once, ends. */
static int serve_once(struct server *s, struct budget *budget, int *ret_status, struct err *err)
{
    const struct http_options o = {.host = "127.0.0.1",
                                   .max_connections = 4,
                                   .header_timeout_s = PATIENCE_S / 4,
                                   .idle_timeout_s = PATIENCE_S / 4,
                                   .period_s = PATIENCE_S / 4,
                                   .max_body_bytes = 4096,
                                   .budget = budget,
                                   .write_error = api_write_error,
                                   .admit = routes_admit,
                                   .handle = routes_handle,
                                   .finished = routes_finished,
                                   .user = s};
    struct http_server *h = NULL;
    int r = http_listen(&o, &h, err);
    if (r >= 0)
        r = http_start(h, err);
    if (r >= 0) {
        failing_calls_exempt(true);
        *ret_status = ask(http_port(h));
        failing_calls_exempt(false);
        http_stop_accepting(h);
    }
    http_close(h);
    return r;
}

static int whole_life(int *ret_status, struct err *err)
{
    struct budget budget = {0};
    struct server_settings all = settings(&budget);
    struct server *s = NULL;
    int r = server_open(&all, &s, err);
    if (r >= 0)
        r = serve_once(s, &budget, ret_status, err);
    server_close(s);
    return r;
}

/* ---- failing ---- */

static bool check_end(const char *what, long n, int r, int status, const struct err *err, bool reached)
{
    bool ok = CHECK(r < 0 ? err->text[0] != 0 : status >= 0) && CHECK(reached || (r == 0 && status == 200));
    if (!ok)
        fprintf(stderr, "  %s, number %ld: %s (%s), status %d\n", what, n, err_name(r), err->text, status);
    return ok;
}

static void fail_calls(void)
{
    const char *name = "";
    long n = 0;
    for (; name && n < LIMIT; n++) {
        struct err err = {0};
        long before = failing_live();
        int fds = open_descriptors(), status = -1;
        failing_calls_plan(n);
        int r = whole_life(&status, &err);
        name = failing_calls_reached();
        if (getenv("SHOW"))
            fprintf(stderr, "%s %d %d %s\n", name ? name : "nothing", r, status, err.text);
        bool ok = check_end(name ? name : "nothing", n, r, status, &err, name != NULL);
        ok &= CHECK_INT(failing_live(), before);
        ok &= CHECK_INT(open_descriptors(), fds);
        if (!ok)
            fprintf(stderr, "  (%s, number %ld)\n", name ? name : "nothing", n);
    }
    printf("%ld calls failed, one at a time\n", n - 1);
    CHECK(n > 30 && n < LIMIT);
}

static void fail_allocations(void)
{
    struct budget budget = {0};
    struct server_settings all = settings(&budget);
    struct server *s = NULL;
    struct err err = {0};
    bool reached = true;
    long n = 0;
    if (!CHECK_INT(server_open(&all, &s, &err), 0))
        return;
    for (int i = 0, status; i < 3; i++) /* what is kept from the first requests is there */
        CHECK(serve_once(s, &budget, &status, &err) == 0 && status == 200);
    for (; reached && n < LIMIT; n++) {
        int fds = open_descriptors(), status = -1;
        err = (struct err){0};
        failing_plan(n);
        int r = serve_once(s, &budget, &status, &err);
        reached = failing_reached();
        check_end("allocation", n, r, status, &err, reached);
        CHECK_INT(open_descriptors(), fds);
    }
    server_close(s);
    printf("%ld allocations failed, one at a time\n", n - 1);
    CHECK(n > 20 && n < LIMIT);
}

/* The life of a server again, for what allocates now and then. */
static void fail_own(void)
{
    const char *name = "";
    long n = 0;
    for (; name && n < LIMIT; n++) {
        struct err err = {0};
        long before = failing_live();
        int status = -1;
        failing_own_plan(n);
        int r = whole_life(&status, &err);
        name = failing_own_reached();
        bool ok = check_end(name ? name : "nothing", n, r, status, &err, name != NULL);
        ok &= CHECK_INT(failing_live(), before);
        if (!ok)
            fprintf(stderr, "  (%s, number %ld)\n", name ? name : "nothing", n);
    }
    printf("%ld calls of our own failed, one at a time\n", n - 1);
    CHECK(n > 10 && n < LIMIT);
}

static bool write_model(const char *root)
{
    char config[128];
    struct err err = {0};
    struct synth_report *report = calloc(1, sizeof(*report));
    snprintf(config, sizeof(config), "%s/config.json", root);
    snprintf(dir, sizeof(dir), "%s/model", root);
    FILE *f = fopen(config, "w");
    fprintf(f, "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":1,"
               "\"vocab_size\":8,\"attention_bias\":true,\"dtrnet_layers\":[0]}");
    fclose(f);
    const struct synth_options o = {.config = config, .out = dir, .route_rate = 0.5, .execute_rate = 0.5, .n_tokens = 512, .n_threads = 1};
    bool ok = report && CHECK_INT(synth_run(&o, report, &err), 0);
    free(report);
    return ok;
}

int main(void)
{
    char root[] = "/tmp/test_fail_serve.XXXXXX", command[96];
    failing_init();
    if (!CHECK(mkdtemp(root) != NULL) || !write_model(root))
        return check_result();
    fail_calls();
    fail_allocations();
    fail_own();
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    CHECK_INT(system(command), 0);
    return check_result();
}
