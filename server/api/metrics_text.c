/* See metrics_text.h. */
#include "server/api/metrics_text.h"

static const double edges_s[HISTOGRAM_BUCKETS] = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                                  1,      2,      5,     10,    20,    30,   60,   120,  180, 300, 600};

void histogram_add(struct histogram *h, double seconds)
{
    int b = 0;
    while (b < HISTOGRAM_BUCKETS && seconds > edges_s[b])
        b++;
    atomic_fetch_add_explicit(&h->counts[b], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->micros, (uint64_t)(seconds * 1e6), memory_order_relaxed);
}

void metrics_head(struct metrics_page *p, const char *name, const char *type, const char *help)
{
    METRICS_LINE(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void metrics_one(struct metrics_page *p, const char *name, const char *type, const char *help, double v)
{
    metrics_head(p, name, type, help);
    METRICS_LINE(p, "%s %.17g\n", name, v);
}

void metrics_label(struct metrics_page *p, const char *text)
{
    for (; *text && p->code >= 0; text++)
        if (*text == '\\' || *text == '"')
            METRICS_LINE(p, "\\%c", *text);
        else if (*text == '\n')
            METRICS_LINE(p, "\\n");
        else
            p->code = buf_append(p->out, text, 1);
}

/* Counts are read once, so that the last bucket and the count agree while others add. */
void metrics_histogram(struct metrics_page *p, const char *name, const char *labels, struct histogram *h)
{
    uint64_t counts[HISTOGRAM_BUCKETS + 1], sum = 0;
    const char *comma = *labels ? "," : "", *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    for (int b = 0; b <= HISTOGRAM_BUCKETS; b++)
        sum += counts[b] = atomic_load_explicit(&h->counts[b], memory_order_relaxed);
    if (!sum && *labels)
        return;
    sum = 0;
    for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
        METRICS_LINE(p, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma, edges_s[b], (unsigned long long)(sum += counts[b]));
    sum += counts[HISTOGRAM_BUCKETS];
    METRICS_LINE(p, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, (unsigned long long)sum);
    METRICS_LINE(p, "%s_sum%s%s%s %.6f\n", name, open, labels, close, 1e-6 * (double)atomic_load(&h->micros));
    METRICS_LINE(p, "%s_count%s%s%s %llu\n", name, open, labels, close, (unsigned long long)sum);
}
