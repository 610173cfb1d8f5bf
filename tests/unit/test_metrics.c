/* /metrics: every line is a comment or a sample, histograms are cumulative, heads are complete, counts land in their series, labels are escaped. */
#include "server/api/metrics.h"
#include "tests/check.h"
#include "tests/unit/fake_engine.h"
#include <stdlib.h>

static struct metrics m;
static const char *const routes[METRICS_ROUTES] = {[0] = "/a", [1] = "/b", [METRICS_ROUTES - 1] = "none"};

static bool has(const char *page, const char *line)
{
    const char *at = strstr(page, line);
    return at && (at == page || at[-1] == '\n') && at[strlen(line)] == '\n';
}

static void test_page(const char *page)
{
    static const char *const lines[] = {
        "dtrnet_http_requests_total{route=\"/a\",status=\"200\"} 3",
        "dtrnet_http_requests_total{route=\"/a\",status=\"other\"} 1",
        "dtrnet_http_requests_total{route=\"/b\",status=\"503\"} 1",
        "dtrnet_http_requests_total{route=\"none\",status=\"404\"} 2",
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"0.0002\"} 2",
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"0.5\"} 3",
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"60\"} 3",
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"600\"} 4",
        "dtrnet_time_to_first_token_seconds_bucket{le=\"0.05\"} 1",
        "dtrnet_time_to_first_token_seconds_sum 0.040000",
        "dtrnet_time_to_first_token_seconds_count 1",
        "dtrnet_time_between_tokens_seconds_bucket{le=\"+Inf\"} 0",
        "dtrnet_queue_seconds_count 0",
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"+Inf\"} 4",
        "dtrnet_http_request_seconds_count{route=\"/a\"} 4",
        "dtrnet_layer_rows_routed_total{layer=\"0\",kind=\"dtrnet\"} 7",
        "dtrnet_layer_rows_routed_total{layer=\"1\",kind=\"dense\"} 70",
        "dtrnet_kv_held_rows 80",
        "dtrnet_kv_held_bytes 5120",
        "dtrnet_kv_most_rows 90",
        "dtrnet_kv_most_bytes 5760",
        "dtrnet_kv_pool_rows 1000",
        "dtrnet_queue_sequences 2",
        "dtrnet_busy_op_seconds_total{op=\"attention\"} 1.500000",
        "dtrnet_device_memory_free_bytes 4096",
        "dtrnet_device_memory_held_bytes{use=\"kv\"} 64000",
        "dtrnet_prompt_tokens_total 9",
        "dtrnet_device_up{device=\"0\"} 1",
        "dtrnet_device_kv_held_rows{device=\"0\"} 80",
        "dtrnet_device_queue_sequences{device=\"0\"} 2",
        "dtrnet_device_free_bytes{device=\"0\"} 4096",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!CHECK(has(page, lines[i])))
            fprintf(stderr, "  no line %s\n", lines[i]);
    CHECK(strstr(page, "model=\"a\\\\b\\\"c\\nd\"") != NULL);
}

/* Every metric has its help and its type before its first sample, once; only counters end in _total. */
static void test_heads(const char *page)
{
    static const char *const process[] = {"open_fds", "max_fds", "cpu_seconds_total", "resident_memory_bytes", "start_time_seconds"};
    for (const char *at = page; (at = strstr(at, "# TYPE ")); at++) {
        char name[96], type[16], again[128];
        CHECK_INT(sscanf(at, "# TYPE %95s %15s", name, type), 2);
        snprintf(again, sizeof(again), "# TYPE %s ", name);
        CHECK(!strstr(at + 1, again));
        size_t n = strlen(name);
        CHECK_INT(!strcmp(type, "counter"), n > 6 && !strcmp(name + n - 6, "_total"));
    }
    for (size_t i = 0; i < sizeof(process) / sizeof(process[0]); i++) {
        char sample[64];
        snprintf(sample, sizeof(sample), "\nprocess_%s ", process[i]);
        const char *at = strstr(page, sample);
        CHECK(at && strtod(at + strlen(sample), NULL) >= 0);
    }
}

static void test_lines(const char *page)
{
    char *copy = strdup(page), *rest = copy;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        char *value = strrchr(line, ' '), *end = NULL;
        if (!*line || !strncmp(line, "# HELP ", 7) || !strncmp(line, "# TYPE ", 7))
            continue;
        CHECK((!strncmp(line, "dtrnet_", 7) || !strncmp(line, "process_", 8)) && value && (strtod(value + 1, &end), end && !*end));
    }
    free(copy);
}

int main(void)
{
    static const struct metrics_names names = {routes, "a\\b\"c\nd", "00", 12.5, 1};
    struct engine_stats stats;
    struct metrics_device device;
    struct buf out;
    buf_init(&out, 1 << 20);
    metrics_count(&m, 0, 200, 0.0001);
    metrics_count(&m, 0, 200, 0.0002);
    metrics_count(&m, 0, 200, 0.3);
    metrics_count(&m, 0, 418, 100);
    metrics_count(&m, 1, 503, 0.001);
    metrics_count(&m, -1, 404, 0.001);
    metrics_count(&m, 999, 404, 0.001);
    m.prompt_tokens = 9;
    histogram_add(&m.first_token, 0.04);
    engine_stats(NULL, &stats);
    metrics_device_read(&device, 0, true, &stats);
    CHECK_INT(metrics_write(&m, &names, &fake_engine_info, &stats, &device, &out), 0);
    test_page(out.data);
    test_heads(out.data);
    test_lines(out.data);
    buf_done(&out);
    buf_init(&out, 100);
    CHECK_INT(metrics_write(&m, &names, &fake_engine_info, &stats, &device, &out), ERR_TOO_LARGE);
    buf_done(&out);
    return check_result();
}
