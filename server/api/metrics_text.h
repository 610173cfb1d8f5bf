/* Prometheus' text exposition (version 0.0.4, prometheus.io/docs/instrumenting/exposition_formats): heads, samples, histograms. */
#pragma once
#include "common/buf.h"
#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_BUCKETS 22

/* Durations. Zeroed is ready; any thread may add. */
struct histogram {
    _Atomic uint64_t counts[HISTOGRAM_BUCKETS + 1]; /* not cumulative; the last is +Inf */
    _Atomic uint64_t micros;
};
void histogram_add(struct histogram *h, double seconds);

/* A page in the making; it remembers the first error, so that it needs one check. */
struct metrics_page {
    struct buf *out;
    int code;
};

#define METRICS_LINE(p, ...) ((p)->code = (p)->code < 0 ? (p)->code : buf_printf((p)->out, __VA_ARGS__))

/* Names are whole: "dtrnet_steps_total". type: counter, gauge or histogram. */
void metrics_head(struct metrics_page *p, const char *name, const char *type, const char *help);
/* A metric without labels. */
void metrics_one(struct metrics_page *p, const char *name, const char *type, const char *help, double v);
/* A label's value, escaped. */
void metrics_label(struct metrics_page *p, const char *text);
/* The samples of one histogram; labels: "route=\"/a\"" or "". Nothing if it is empty and has labels. */
void metrics_histogram(struct metrics_page *p, const char *name, const char *labels, struct histogram *h);
