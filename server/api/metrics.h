/* Counters and latency histograms of the HTTP side, and the Prometheus text that they and the engine's make. */
#pragma once
#include "common/buf.h"
#include "engine/engine.h"
#include "server/api/metrics_devices.h"
#include "server/api/metrics_text.h"
#include <stdatomic.h>
#include <stdint.h>

#define METRICS_ROUTES 32 /* routes.c has fewer; the last one counts paths that are no route */
#define METRICS_STATUSES 16

/* Zeroed is ready. Any thread may count. */
struct metrics {
    _Atomic uint64_t requests[METRICS_ROUTES][METRICS_STATUSES];
    struct histogram latency[METRICS_ROUTES];
    struct histogram queue, first_token, between_tokens;
    _Atomic uint64_t prompt_tokens, completion_tokens, dropped_tokens;
};

void metrics_count(struct metrics *m, int route, int status, double seconds);

struct metrics_names {
    const char *const *route; /* [METRICS_ROUTES]; NULL: unused */
    const char *model, *hash; /* hash "": not known yet */
    double uptime_s;
    int in_flight;
    uint64_t log_dropped;
};

/* Appends the text exposition (version 0.0.4). devices: [info->n_devices] */
int metrics_write(struct metrics *m, const struct metrics_names *names, const struct engine_info *info, const struct engine_stats *stats,
                  const struct metrics_device *devices, struct buf *out);
