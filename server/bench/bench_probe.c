/* What the machine can read, which bounds generation. */
#include "server/bench/bench.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PROBE_BYTES ((size_t)512 << 20)

struct reader {
    pthread_t thread;
    const uint64_t *p;
    size_t n;
    uint64_t sum;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    uint64_t s[8] = {0};
    for (size_t i = 0; i + 8 <= r->n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += r->p[i + j];
    for (int j = 0; j < 8; j++)
        r->sum += s[j];
    return NULL;
}

double bench_probe_read(int threads)
{
    struct reader *r = calloc(threads, sizeof(*r));
    size_t words = PROBE_BYTES / sizeof(uint64_t) / threads;
    uint64_t *p = malloc(words * threads * sizeof(*p));
    double best = 0;
    if (!r || !p)
        threads = 0;
    else
        memset(p, 1, words * threads * sizeof(*p));
    for (int pass = 0; pass < 5 && threads; pass++) {
        int started = 0;
        double begin = bench_seconds();
        for (; started < threads; started++) {
            r[started] = (struct reader){.p = p + words * started, .n = words};
            if (pthread_create(&r[started].thread, NULL, read_all, &r[started]))
                break;
        }
        for (int i = 0; i < started; i++)
            pthread_join(r[i].thread, NULL);
        double rate = 1e-9 * words * started * sizeof(*p) / (bench_seconds() - begin);
        best = rate > best ? rate : best;
    }
    free(r);
    free(p);
    return best;
}
