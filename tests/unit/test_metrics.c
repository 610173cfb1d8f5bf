/* /metrics: every line is a comment or a sample, histograms are cumulative, counts land in their series, labels are escaped. */
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
        "dtrnet_http_request_seconds_bucket{route=\"/a\",le=\"+Inf\"} 4",
        "dtrnet_http_request_seconds_count{route=\"/a\"} 4",
        "dtrnet_layer_rows_routed_total{layer=\"0\",kind=\"dtrnet\"} 7",
        "dtrnet_layer_rows_routed_total{layer=\"1\",kind=\"dense\"} 70",
        "dtrnet_kv_rows_held 80",
        "dtrnet_kv_bytes_held 5120",
        "dtrnet_kv_rows_total 1000",
        "dtrnet_queue_sequences 2",
        "dtrnet_busy_op_seconds_total{op=\"attention\"} 1.500000",
        "dtrnet_device_memory_bytes{use=\"free\"} 4096",
        "dtrnet_device_memory_bytes{use=\"kv\"} 64000",
        "dtrnet_prompt_tokens_total 9",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (!CHECK(has(page, lines[i])))
            fprintf(stderr, "  no line %s\n", lines[i]);
    CHECK(strstr(page, "model=\"a\\\\b\\\"c\\nd\"") != NULL);
}

static void test_lines(const char *page)
{
    char *copy = strdup(page), *rest = copy;
    for (char *line = strsep(&rest, "\n"); line; line = strsep(&rest, "\n")) {
        char *value = strrchr(line, ' '), *end = NULL;
        if (!*line || !strncmp(line, "# HELP dtrnet_", 14) || !strncmp(line, "# TYPE dtrnet_", 14))
            continue;
        CHECK(!strncmp(line, "dtrnet_", 7) && value && (strtod(value + 1, &end), end && !*end));
    }
    free(copy);
}

int main(void)
{
    static const struct metrics_names names = {routes, "a\\b\"c\nd", 12.5, 1};
    struct engine_stats stats;
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
    engine_stats(NULL, &stats);
    CHECK_INT(metrics_write(&m, &names, &fake_engine_info, &stats, &out), 0);
    test_page(out.data);
    test_lines(out.data);
    buf_done(&out);
    buf_init(&out, 100);
    CHECK_INT(metrics_write(&m, &names, &fake_engine_info, &stats, &out), ERR_TOO_LARGE);
    buf_done(&out);
    return check_result();
}
