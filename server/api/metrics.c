/* See metrics.h. Text format: prometheus.io/docs/instrumenting/exposition_formats. */
#include "server/api/metrics.h"

static const double edges_s[METRICS_BUCKETS] = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 20, 60};
static const int statuses[METRICS_STATUSES - 1] = {200, 204, 400, 401, 404, 405, 413, 499, 500, 503};

static int status_index(int status)
{
    for (int i = 0; i < METRICS_STATUSES - 1; i++)
        if (statuses[i] && statuses[i] == status)
            return i;
    return METRICS_STATUSES - 1;
}

void metrics_count(struct metrics *m, int route, int status, double seconds)
{
    int b = 0;
    if (route < 0 || route >= METRICS_ROUTES)
        route = METRICS_ROUTES - 1;
    while (b < METRICS_BUCKETS && seconds > edges_s[b])
        b++;
    atomic_fetch_add_explicit(&m->requests[route][status_index(status)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->buckets[route][b], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&m->micros[route], (uint64_t)(seconds * 1e6), memory_order_relaxed);
}

/* A writer that remembers the first error, so that a page of lines needs one check. */
struct page {
    struct buf *out;
    int r;
};

#define LINE(p, ...) ((p)->r = (p)->r < 0 ? (p)->r : buf_printf((p)->out, __VA_ARGS__))

static void head(struct page *p, const char *name, const char *type, const char *help)
{
    LINE(p, "# HELP dtrnet_%s %s\n# TYPE dtrnet_%s %s\n", name, help, name, type);
}

static void one(struct page *p, const char *name, const char *type, const char *help, double v)
{
    head(p, name, type, help);
    LINE(p, "dtrnet_%s %.17g\n", name, v);
}

/* A label's value: backslash, quote and newline escaped. */
static void label(struct page *p, const char *text)
{
    for (; *text && p->r >= 0; text++)
        if (*text == '\\' || *text == '"')
            LINE(p, "\\%c", *text);
        else if (*text == '\n')
            LINE(p, "\\n");
        else
            p->r = buf_append(p->out, text, 1);
}

static void write_requests(struct page *p, struct metrics *m, const char *const *route)
{
    head(p, "http_requests_total", "counter", "Requests answered, by route and status.");
    for (int i = 0; i < METRICS_ROUTES; i++)
        for (int s = 0; s < METRICS_STATUSES && route[i]; s++) {
            uint64_t n = atomic_load(&m->requests[i][s]);
            if (n && s < METRICS_STATUSES - 1)
                LINE(p, "dtrnet_http_requests_total{route=\"%s\",status=\"%d\"} %llu\n", route[i], statuses[s], (unsigned long long)n);
            else if (n)
                LINE(p, "dtrnet_http_requests_total{route=\"%s\",status=\"other\"} %llu\n", route[i], (unsigned long long)n);
        }
}

static void write_latency(struct page *p, struct metrics *m, const char *const *route)
{
    head(p, "http_request_seconds", "histogram", "Time from the first byte of a request's headers to the end of its answer.");
    for (int i = 0; i < METRICS_ROUTES; i++) {
        uint64_t sum = 0, all = 0;
        for (int b = 0; b <= METRICS_BUCKETS; b++)
            all += atomic_load(&m->buckets[i][b]);
        if (!all || !route[i])
            continue;
        for (int b = 0; b < METRICS_BUCKETS; b++) {
            sum += atomic_load(&m->buckets[i][b]);
            LINE(p, "dtrnet_http_request_seconds_bucket{route=\"%s\",le=\"%g\"} %llu\n", route[i], edges_s[b], (unsigned long long)sum);
        }
        sum += atomic_load(&m->buckets[i][METRICS_BUCKETS]);
        LINE(p, "dtrnet_http_request_seconds_bucket{route=\"%s\",le=\"+Inf\"} %llu\n", route[i], (unsigned long long)sum);
        LINE(p, "dtrnet_http_request_seconds_sum{route=\"%s\"} %.6f\n", route[i], 1e-6 * (double)atomic_load(&m->micros[i]));
        LINE(p, "dtrnet_http_request_seconds_count{route=\"%s\"} %llu\n", route[i], (unsigned long long)sum);
    }
}

static void write_layers(struct page *p, const struct engine_info *info, const struct engine_stats *s)
{
    head(p, "layer_rows_routed_total", "counter", "Of dtrnet_rows_computed_total, rows that attended (were selected) in a layer.");
    for (int l = 0; l < info->config->n_layers; l++)
        LINE(p, "dtrnet_layer_rows_routed_total{layer=\"%d\",kind=\"%s\"} %llu\n", l, layer_plan_kind(&info->plan[l]),
             (unsigned long long)s->rows_routed[l]);
    head(p, "layer_rows_executed_total", "counter", "Of dtrnet_rows_computed_total, rows that did not skip a layer.");
    for (int l = 0; l < info->config->n_layers; l++)
        LINE(p, "dtrnet_layer_rows_executed_total{layer=\"%d\",kind=\"%s\"} %llu\n", l, layer_plan_kind(&info->plan[l]),
             (unsigned long long)s->rows_executed[l]);
    head(p, "router_states", "gauge", "Copies of router states that the prefix cache keeps.");
    LINE(p, "dtrnet_router_states %llu\n", (unsigned long long)s->states_held);
}

static void write_times(struct page *p, const struct engine_stats *s)
{
    head(p, "busy_op_seconds_total", "counter", "dtrnet_busy_seconds_total by what was computed, estimated from one step a second.");
    LINE(p, "dtrnet_busy_op_seconds_total{op=\"matmul\"} %.6f\n", s->matmul_s);
    LINE(p, "dtrnet_busy_op_seconds_total{op=\"attention\"} %.6f\n", s->attention_s);
    LINE(p, "dtrnet_busy_op_seconds_total{op=\"other\"} %.6f\n", s->other_s);
}

static void write_memory(struct page *p, const struct engine_info *info, const struct engine_stats *s)
{
    const struct {
        const char *use;
        uint64_t bytes;
    } rows[] = {{"total", s->memory_total_bytes},
                {"free", s->memory_free_bytes},
                {"weights", info->weight_bytes},
                {"kv", info->kv_row_bytes * info->kv_rows_total},
                {"router_states", info->state_slot_bytes * info->state_slots_total},
                {"workspace", info->workspace_bytes}};
    head(p, "device_memory_bytes", "gauge",
         "Memory of the device (on the CPU, what the process may use): all, free at the latest sampled step, and what dtrnet holds.");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        LINE(p, "dtrnet_device_memory_bytes{use=\"%s\"} %llu\n", rows[i].use, (unsigned long long)rows[i].bytes);
}

/* How many steps tickets waited for their first row, by their lane. */
static void write_starts(struct page *p, const struct engine_stats *s)
{
    head(p, "start_steps", "histogram", "Steps launched from a call's submission to the one with its first row, by how it was scheduled.");
    for (int lane = 0; lane < ENGINE_LANES; lane++) {
        unsigned long long sum = 0;
        for (int i = 0; i < ENGINE_STARTS - 1; i++) {
            sum += s->starts[lane][i];
            LINE(p, "dtrnet_start_steps_bucket{lane=\"%s\",le=\"%d\"} %llu\n", engine_lanes[lane], engine_start_edges[i], sum);
        }
        sum += s->starts[lane][ENGINE_STARTS - 1];
        LINE(p, "dtrnet_start_steps_bucket{lane=\"%s\",le=\"+Inf\"} %llu\n", engine_lanes[lane], sum);
        LINE(p, "dtrnet_start_steps_sum{lane=\"%s\"} %llu\n", engine_lanes[lane], (unsigned long long)s->start_steps[lane]);
        LINE(p, "dtrnet_start_steps_count{lane=\"%s\"} %llu\n", engine_lanes[lane], sum);
    }
}

static void write_info(struct page *p, const struct metrics_names *n, const struct engine_info *info)
{
    head(p, "model_info", "gauge", "What is served; always 1.");
    LINE(p, "dtrnet_model_info{model=\"");
    label(p, n->model);
    LINE(p, "\",family=\"%s\",dtype=\"%s\",device=\"%s\",hash=\"%s\",max_model_len=\"%d\"} 1\n",
         layer_plan_family(info->plan, info->config->n_layers), info->dtype, info->device, info->model_hash, info->max_model_len);
}

int metrics_write(struct metrics *m, const struct metrics_names *n, const struct engine_info *info, const struct engine_stats *s,
                  struct buf *out)
{
    struct page page = {out, 0}, *p = &page;
    double row = (double)info->kv_row_bytes;
    write_info(p, n, info);
    one(p, "uptime_seconds", "gauge", "Seconds since start.", n->uptime_s);
    one(p, "http_requests_in_flight", "gauge", "Requests being answered.", n->in_flight);
    one(p, "log_lines_dropped_total", "counter", "Log lines that could not be written at once.", (double)n->log_dropped);
    write_requests(p, m, n->route);
    write_latency(p, m, n->route);
    one(p, "prompt_tokens_total", "counter", "Tokens in prompts of answered requests.", (double)atomic_load(&m->prompt_tokens));
    one(p, "completion_tokens_total", "counter", "Tokens generated for answered requests.", (double)atomic_load(&m->completion_tokens));
    one(p, "dropped_tokens_total", "counter", "Tokens generated behind a stop string before the engine was told, and delivered to nobody.",
        (double)atomic_load(&m->dropped_tokens));
    one(p, "sequences_done_total", "counter", "Sequences that the engine finished.", (double)s->requests_done);
    one(p, "sequences_failed_total", "counter", "Sequences that failed in the engine.", (double)s->requests_failed);
    one(p, "sequences_cancelled_total", "counter", "Sequences whose client went away.", (double)s->requests_cancelled);
    one(p, "steps_total", "counter", "Forward passes.", (double)s->steps);
    one(p, "busy_seconds_total", "counter", "Seconds spent in forward passes.", s->busy_s);
    write_times(p, s);
    one(p, "rows_computed_total", "counter", "Positions computed.", (double)s->rows_computed);
    one(p, "rows_cached_total", "counter", "Positions taken from the prefix tree instead.", (double)s->rows_cached);
    one(p, "rows_rescored_total", "counter", "Positions run again over cached K and V for their scores.", (double)s->rows_rescored);
    one(p, "tokens_generated_total", "counter", "Tokens generated.", (double)s->tokens_generated);
    one(p, "tokens_scored_total", "counter", "Tokens scored.", (double)s->tokens_scored);
    write_layers(p, info, s);
    one(p, "kv_rows_held", "gauge", "Rows (K and V of one token in one layer) held now.", (double)s->kv_rows_held);
    one(p, "kv_rows_reserved", "gauge", "Rows promised to running sequences beyond these.", (double)s->kv_rows_reserved);
    one(p, "kv_rows_total", "gauge", "Rows in the pool.", (double)info->kv_rows_total);
    one(p, "kv_bytes_held", "gauge", "Bytes of the rows held.", row * (double)s->kv_rows_held);
    one(p, "kv_bytes_total", "gauge", "Bytes of the pool.", row * (double)info->kv_rows_total);
    write_memory(p, info, s);
    one(p, "prefix_tree_tokens", "gauge", "Tokens in the prefix tree.", (double)s->tree_tokens);
    one(p, "prefix_tree_nodes", "gauge", "Nodes of the prefix tree.", (double)s->tree_nodes);
    one(p, "prefix_tree_evicted_tokens_total", "counter", "Tokens that the prefix tree gave up.", (double)s->evicted_tokens);
    one(p, "preemptions_total", "counter", "Sequences that made way for others, to be computed again.", (double)s->preemptions);
    write_starts(p, s);
    one(p, "queue_sequences", "gauge", "Sequences waiting.", s->queued);
    one(p, "running_sequences", "gauge", "Sequences running.", s->running);
    return page.r;
}
