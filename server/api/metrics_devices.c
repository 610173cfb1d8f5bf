/* One table: a metric is a line of it. */
#include "server/api/metrics_devices.h"

static const struct {
    const char *name, *type, *help;
} rows[METRICS_DEVICE_VALUES] = {
    {"dtrnet_device_up", "gauge", "1 while the device works; 0 once it has failed."},
    {"dtrnet_device_steps_total", "counter", "Forward passes of the device."},
    {"dtrnet_device_busy_seconds_total", "counter", "Seconds that it spent in them."},
    {"dtrnet_device_rows_computed_total", "counter", "Positions that it computed."},
    {"dtrnet_device_rows_cached_total", "counter", "Positions that requests took from its prefix tree."},
    {"dtrnet_device_queue_sequences", "gauge", "Sequences that wait for it."},
    {"dtrnet_device_running_sequences", "gauge", "Sequences that run on it."},
    {"dtrnet_device_moved_sequences_total", "counter", "Sequences that other devices took over when it failed."},
    {"dtrnet_device_kv_held_rows", "gauge", "Rows (K and V of one token in one layer) that it holds."},
    {"dtrnet_device_prefix_tree_tokens", "gauge", "Tokens in its prefix tree."},
    {"dtrnet_device_total_bytes", "gauge", "Its memory; of the CPU, what the process may use."},
    {"dtrnet_device_free_bytes", "gauge", "Of it, free at its latest sampled step."},
};

void metrics_device_read(struct metrics_device *d, int index, bool up, const struct engine_stats *s)
{
    *d = (struct metrics_device){index,
                                 {up, (double)s->steps, s->busy_s, (double)s->rows_computed, (double)s->rows_cached, s->queued, s->running,
                                  (double)s->requests_moved, (double)s->kv_rows_held, (double)s->tree_tokens, (double)s->memory_total_bytes,
                                  (double)s->memory_free_bytes}};
}

void metrics_devices(struct metrics_page *p, const struct metrics_device *d, int n)
{
    for (int i = 0; i < METRICS_DEVICE_VALUES; i++) {
        metrics_head(p, rows[i].name, rows[i].type, rows[i].help);
        for (int j = 0; j < n; j++)
            METRICS_LINE(p, "%s{device=\"%d\"} %.17g\n", rows[i].name, d[j].index, d[j].values[i]);
    }
}
