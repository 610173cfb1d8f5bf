/* See bench.h. */
#include "server/bench/bench.h"
#include <stdlib.h>
#include <time.h>

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

double bench_seconds(void)
{
    return clock_seconds(CLOCK_MONOTONIC);
}

double bench_cpu_seconds(void)
{
    return clock_seconds(CLOCK_PROCESS_CPUTIME_ID);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *v, int n)
{
    qsort(v, n, sizeof(*v), by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* xorshift64*: Vigna, arXiv 1402.6246. */
uint64_t bench_random(struct bench *b)
{
    b->random ^= b->random >> 12;
    b->random ^= b->random << 25;
    b->random ^= b->random >> 27;
    return b->random * 0x2545f4914f6cdd1dull >> 33;
}

int32_t *bench_random_tokens(struct bench *b, size_t n)
{
    int32_t *t = malloc(n * sizeof(*t));
    for (size_t i = 0; t && i < n; i++)
        t[i] = (int32_t)(bench_random(b) % (uint64_t)b->info->config->vocab);
    return t;
}

int bench_add_row(struct bench *b, json_t *row, struct err *err)
{
    if (!row || json_array_append_new(json_object_get(b->report, "workloads"), row))
        return err_set(err, ERR_NOMEM, "no memory for the report");
    return 0;
}
