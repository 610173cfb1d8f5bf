#include "common/thread.h"
#include "tests/check.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define MAX_N 1000

struct sums {
    int hits[MAX_N]; /* written by whichever thread owns the index */
    int per_thread[64];
    int size;
};

static atomic_int starts;

static void on_start(void)
{
    atomic_fetch_add(&starts, 1);
}

static void hit(void *arg, int i, int thread)
{
    struct sums *s = arg;
    s->hits[i]++;
    s->per_thread[thread]++;
}

static void test_every_index_once(int n_threads)
{
    struct thread_pool *p = NULL;
    struct err e;
    atomic_store(&starts, 0);
    if (!CHECK_INT(thread_pool_new(n_threads, on_start, &p, &e), 0))
        return;
    CHECK_INT(thread_pool_size(p), n_threads);
    static const int sizes[] = {0, 1, 2, 3, 7, 64, MAX_N};
    long total = 0, counted = 0;
    struct sums s = {.size = n_threads};
    int want[MAX_N] = {0};
    for (int round = 0; round < 300; round++) {
        int n = sizes[round % 7];
        parallel_for(p, n, hit, &s);
        for (int i = 0; i < n; i++)
            want[i]++;
        total += n;
        if (round % 50 == 0) /* let the workers fall asleep */
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    CHECK(memcmp(s.hits, want, sizeof(want)) == 0);
    for (int t = 0; t < n_threads; t++)
        counted += s.per_thread[t];
    CHECK_INT(counted, total);
    thread_pool_free(p);
    CHECK_INT(atomic_load(&starts), n_threads);
}

int main(void)
{
    CHECK(thread_usable_count() >= 1);
    test_every_index_once(1);
    test_every_index_once(2);
    test_every_index_once(3);
    test_every_index_once(17);
    thread_pool_free(NULL);
    return check_result();
}
