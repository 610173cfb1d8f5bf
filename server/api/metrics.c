/* See metrics.h. */
#include "server/api/metrics.h"
#include "server/api/metrics_process.h"
#include <stdio.h>

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
    if (route < 0 || route >= METRICS_ROUTES)
        route = METRICS_ROUTES - 1;
    atomic_fetch_add_explicit(&m->requests[route][status_index(status)], 1, memory_order_relaxed);
    histogram_add(&m->latency[route], seconds);
}

/* ---- the page ---- */

static void write_requests(struct metrics_page *p, struct metrics *m, const char *const *route)
{
    metrics_head(p, "dtrnet_http_requests_total", "counter", "Requests answered, by route and status.");
    for (int i = 0; i < METRICS_ROUTES; i++)
        for (int s = 0; s < METRICS_STATUSES && route[i]; s++) {
            uint64_t n = atomic_load(&m->requests[i][s]);
            if (n && s < METRICS_STATUSES - 1)
                METRICS_LINE(p, "dtrnet_http_requests_total{route=\"%s\",status=\"%d\"} %llu\n", route[i], statuses[s],
                             (unsigned long long)n);
            else if (n)
                METRICS_LINE(p, "dtrnet_http_requests_total{route=\"%s\",status=\"other\"} %llu\n", route[i], (unsigned long long)n);
        }
}

static void write_times(struct metrics_page *p, struct metrics *m, const char *const *route)
{
    const struct {
        const char *name, *help;
        struct histogram *h;
    } rows[] = {
        {"dtrnet_queue_seconds", "Time that a sequence waited before it ran.", &m->queue},
        {"dtrnet_time_to_first_token_seconds", "Time from a request's body to the first token generated for it.", &m->first_token},
        {"dtrnet_time_between_tokens_seconds", "Time between the tokens generated for a sequence.", &m->between_tokens},
    };
    metrics_head(p, "dtrnet_http_request_seconds", "histogram", "Time from a request's headers to the end of its answer.");
    for (int i = 0; i < METRICS_ROUTES; i++) {
        char labels[96];
        snprintf(labels, sizeof(labels), "route=\"%s\"", route[i] ? route[i] : "");
        if (route[i])
            metrics_histogram(p, "dtrnet_http_request_seconds", labels, &m->latency[i]);
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        metrics_head(p, rows[i].name, "histogram", rows[i].help);
        metrics_histogram(p, rows[i].name, "", rows[i].h);
    }
}

static void write_layers(struct metrics_page *p, const struct engine_info *info, const struct engine_stats *s)
{
    metrics_head(p, "dtrnet_layer_rows_routed_total", "counter",
                 "Of dtrnet_rows_computed_total, rows that attended (were selected) in a layer.");
    for (int l = 0; l < info->config->n_layers; l++)
        METRICS_LINE(p, "dtrnet_layer_rows_routed_total{layer=\"%d\",kind=\"%s\"} %llu\n", l, layer_plan_kind(&info->plan[l]),
                     (unsigned long long)s->rows_routed[l]);
    metrics_head(p, "dtrnet_layer_rows_executed_total", "counter", "Of dtrnet_rows_computed_total, rows that did not skip a layer.");
    for (int l = 0; l < info->config->n_layers; l++)
        METRICS_LINE(p, "dtrnet_layer_rows_executed_total{layer=\"%d\",kind=\"%s\"} %llu\n", l, layer_plan_kind(&info->plan[l]),
                     (unsigned long long)s->rows_executed[l]);
    metrics_head(p, "dtrnet_router_states", "gauge", "Copies of router states that the prefix cache keeps.");
    METRICS_LINE(p, "dtrnet_router_states %llu\n", (unsigned long long)s->states_held);
}

static void write_busy(struct metrics_page *p, const struct engine_stats *s)
{
    metrics_head(p, "dtrnet_busy_op_seconds_total", "counter",
                 "dtrnet_busy_seconds_total by what was computed, estimated from one step a second.");
    METRICS_LINE(p, "dtrnet_busy_op_seconds_total{op=\"matmul\"} %.6f\n", s->matmul_s);
    METRICS_LINE(p, "dtrnet_busy_op_seconds_total{op=\"attention\"} %.6f\n", s->attention_s);
    METRICS_LINE(p, "dtrnet_busy_op_seconds_total{op=\"other\"} %.6f\n", s->other_s);
}

static void write_memory(struct metrics_page *p, const struct engine_info *info, const struct engine_stats *s)
{
    const struct {
        const char *use;
        uint64_t bytes;
    } rows[] = {{"weights", info->weight_bytes},
                {"kv", info->kv_row_bytes * info->kv_rows_total},
                {"router_states", info->state_slot_bytes * info->state_slots_total},
                {"workspace", info->workspace_bytes}};
    metrics_one(p, "dtrnet_device_memory_size_bytes", "gauge", "Memory of the device; on the CPU, what the process may use.",
                (double)s->memory_total_bytes);
    metrics_one(p, "dtrnet_device_memory_free_bytes", "gauge", "Of it, free at the latest sampled step.", (double)s->memory_free_bytes);
    metrics_head(p, "dtrnet_device_memory_held_bytes", "gauge", "Memory of the device that dtrnet holds.");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        METRICS_LINE(p, "dtrnet_device_memory_held_bytes{use=\"%s\"} %llu\n", rows[i].use, (unsigned long long)rows[i].bytes);
}

/* How many steps tickets waited for their first row, by their lane. */
static void write_starts(struct metrics_page *p, const struct engine_stats *s)
{
    metrics_head(p, "dtrnet_start_steps", "histogram",
                 "Steps launched from a call's submission to the one with its first row, by how it was scheduled.");
    for (int lane = 0; lane < ENGINE_LANES; lane++) {
        unsigned long long sum = 0;
        for (int i = 0; i < ENGINE_STARTS - 1; i++) {
            sum += s->starts[lane][i];
            METRICS_LINE(p, "dtrnet_start_steps_bucket{lane=\"%s\",le=\"%d\"} %llu\n", engine_lanes[lane], engine_start_edges[i], sum);
        }
        sum += s->starts[lane][ENGINE_STARTS - 1];
        METRICS_LINE(p, "dtrnet_start_steps_bucket{lane=\"%s\",le=\"+Inf\"} %llu\n", engine_lanes[lane], sum);
        METRICS_LINE(p, "dtrnet_start_steps_sum{lane=\"%s\"} %llu\n", engine_lanes[lane], (unsigned long long)s->start_steps[lane]);
        METRICS_LINE(p, "dtrnet_start_steps_count{lane=\"%s\"} %llu\n", engine_lanes[lane], sum);
    }
}

static void write_info(struct metrics_page *p, const struct metrics_names *n, const struct engine_info *info)
{
    metrics_head(p, "dtrnet_model_info", "gauge", "What is served; always 1.");
    METRICS_LINE(p, "dtrnet_model_info{model=\"");
    metrics_label(p, n->model);
    METRICS_LINE(p, "\",family=\"%s\",dtype=\"%s\",device=\"%s\",hash=\"%s\",max_model_len=\"%d\"} 1\n",
                 layer_plan_family(info->plan, info->config->n_layers), info->dtype, info->device, n->hash, info->max_model_len);
}

int metrics_write(struct metrics *m, const struct metrics_names *n, const struct engine_info *info, const struct engine_stats *s,
                  const struct metrics_device *devices, struct buf *out)
{
    struct metrics_page page = {out, 0}, *p = &page;
    double row = (double)info->kv_row_bytes;
    write_info(p, n, info);
    metrics_one(p, "dtrnet_uptime_seconds", "gauge", "Seconds since start.", n->uptime_s);
    metrics_one(p, "dtrnet_http_requests_in_flight", "gauge", "Requests being answered.", n->in_flight);
    metrics_one(p, "dtrnet_log_lines_dropped_total", "counter", "Log lines that could not be written at once.", (double)n->log_dropped);
    write_requests(p, m, n->route);
    write_times(p, m, n->route);
    metrics_one(p, "dtrnet_prompt_tokens_total", "counter", "Tokens in prompts of answered requests.",
                (double)atomic_load(&m->prompt_tokens));
    metrics_one(p, "dtrnet_completion_tokens_total", "counter", "Tokens generated for answered requests.",
                (double)atomic_load(&m->completion_tokens));
    metrics_one(p, "dtrnet_dropped_tokens_total", "counter",
                "Tokens generated behind a stop string before the engine was told, and delivered to nobody.",
                (double)atomic_load(&m->dropped_tokens));
    metrics_one(p, "dtrnet_sequences_done_total", "counter", "Sequences that the engine finished.", (double)s->requests_done);
    metrics_one(p, "dtrnet_sequences_failed_total", "counter", "Sequences that failed in the engine.", (double)s->requests_failed);
    metrics_one(p, "dtrnet_sequences_cancelled_total", "counter", "Sequences whose client went away.", (double)s->requests_cancelled);
    metrics_one(p, "dtrnet_steps_total", "counter", "Forward passes.", (double)s->steps);
    metrics_one(p, "dtrnet_steps_overlapped_total", "counter", "Forward passes that began while another was under way.",
                (double)s->steps_overlapped);
    metrics_one(p, "dtrnet_busy_seconds_total", "counter", "Seconds spent in forward passes.", s->busy_s);
    metrics_one(p, "dtrnet_device_wait_seconds_total", "counter", "Of dtrnet_busy_seconds_total, seconds spent waiting for the device.",
                s->wait_s);
    write_busy(p, s);
    metrics_one(p, "dtrnet_rows_computed_total", "counter", "Positions computed.", (double)s->rows_computed);
    metrics_one(p, "dtrnet_rows_cached_total", "counter", "Positions taken from the prefix tree instead.", (double)s->rows_cached);
    metrics_one(p, "dtrnet_rows_rescored_total", "counter", "Positions run again over cached K and V for their scores.",
                (double)s->rows_rescored);
    metrics_one(p, "dtrnet_sequences_joined_total", "counter",
                "Sequences that ran in one step with the prefix that they share with another.", (double)s->sequences_joined);
    metrics_one(p, "dtrnet_rows_followed_total", "counter", "Positions computed whose launch did not wait for the token before.",
                (double)s->rows_followed);
    metrics_one(p, "dtrnet_rows_dropped_total", "counter",
                "Positions launched so and not counted, as their sequences had ended, or made way for others.", (double)s->rows_dropped);
    metrics_one(p, "dtrnet_tokens_generated_total", "counter", "Tokens generated.", (double)s->tokens_generated);
    metrics_one(p, "dtrnet_tokens_scored_total", "counter", "Tokens scored.", (double)s->tokens_scored);
    write_layers(p, info, s);
    metrics_one(p, "dtrnet_kv_held_rows", "gauge", "Rows (K and V of one token in one layer) held now.", (double)s->kv_rows_held);
    metrics_one(p, "dtrnet_kv_most_rows", "gauge", "Most rows in use at a time since the start; others were never written.",
                (double)s->kv_rows_most);
    metrics_one(p, "dtrnet_kv_reserved_rows", "gauge", "Rows promised to running sequences beyond these.", (double)s->kv_rows_reserved);
    metrics_one(p, "dtrnet_kv_pool_rows", "gauge", "Rows in the pool.", (double)info->kv_rows_total);
    metrics_one(p, "dtrnet_kv_held_bytes", "gauge", "Bytes of the rows held.", row * (double)s->kv_rows_held);
    metrics_one(p, "dtrnet_kv_most_bytes", "gauge", "Bytes of the most rows in use: of the pool, what takes memory on the CPU.",
                row * (double)s->kv_rows_most);
    metrics_one(p, "dtrnet_kv_pool_bytes", "gauge", "Bytes of the pool.", row * (double)info->kv_rows_total);
    write_memory(p, info, s);
    metrics_one(p, "dtrnet_prefix_tree_tokens", "gauge", "Tokens in the prefix tree.", (double)s->tree_tokens);
    metrics_one(p, "dtrnet_prefix_tree_nodes", "gauge", "Nodes of the prefix tree.", (double)s->tree_nodes);
    metrics_one(p, "dtrnet_prefix_tree_bytes", "gauge", "Host memory of the prefix tree, beside K and V.", (double)s->tree_bytes);
    metrics_one(p, "dtrnet_prefix_tree_evicted_tokens_total", "counter", "Tokens that the prefix tree gave up.", (double)s->evicted_tokens);
    metrics_one(p, "dtrnet_preemptions_total", "counter", "Sequences that made way for others, to be computed again.",
                (double)s->preemptions);
    write_starts(p, s);
    metrics_one(p, "dtrnet_queue_sequences", "gauge", "Sequences waiting.", s->queued);
    metrics_one(p, "dtrnet_running_sequences", "gauge", "Sequences running.", s->running);
    metrics_devices(p, devices, info->n_devices);
    metrics_process(p);
    return page.code;
}
