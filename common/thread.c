/* Worker pool.
 *
 * The number of indices not yet handed out, `left`, is all that publishes a loop: the caller writes fn, arg and n, then
 * stores left = n; whoever lowers left by one owns an index and may read them, because the caller does not return
 * before `done` has counted every index. A worker that wakes late finds left = 0, or helps with the loop it finds.
 *
 * Idle workers spin for SPIN_NS, then sleep on a condition variable. A worker announces itself in `sleepers` before its
 * last look at left, and the caller looks at sleepers after storing left (both sequentially consistent), so one of the
 * two always sees the other. With more threads than CPUs, spinning gives the CPU away. */
#include "common/thread.h"
#include "common/cgroup.h"
#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 50000
#define CACHE_LINE 64

struct worker {
    struct thread_pool *pool;
    pthread_t thread;
    int index;
};

struct thread_pool {
    alignas(CACHE_LINE) atomic_int left; /* indices not handed out */
    alignas(CACHE_LINE) atomic_int done; /* indices finished */
    alignas(CACHE_LINE) atomic_int sleepers;
    alignas(CACHE_LINE) void (*fn)(void *arg, int i, int thread);
    void *arg;
    int n;
    int size;
    int n_started;       /* workers running */
    bool oversubscribed; /* more threads than CPUs */
    void (*on_start)(void);
    atomic_bool stop;
    pthread_mutex_t lock; /* for `wake` alone; a leaf */
    pthread_cond_t wake;
    struct worker *workers;
};

/* ---- how many threads ---- */

static int affinity_count(void)
{
    for (int n_cpus = 1024; n_cpus <= 1 << 20; n_cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC(n_cpus);
        size_t bytes = CPU_ALLOC_SIZE(n_cpus);
        if (!set)
            break;
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

int thread_usable_count(void)
{
    int count = affinity_count(), quota = cgroup_cpu_limit("/proc/self/cgroup", "/sys/fs/cgroup");
    return quota > 0 && quota < count ? quota : count;
}

/* ---- the loop ---- */

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* One turn of waiting; false once SPIN_NS have passed since the first (*turn and *start begin as 0). */
static bool spin(const struct thread_pool *p, unsigned *turn, int64_t *start)
{
    relax();
    if (++*turn % 64 != 0)
        return true;
    if (p->oversubscribed)
        sched_yield();
    int64_t now = now_ns();
    if (*start == 0)
        *start = now;
    return now - *start < SPIN_NS;
}

static void work(struct thread_pool *p, int thread)
{
    int left = atomic_load_explicit(&p->left, memory_order_relaxed);
    while (left > 0) {
        if (!atomic_compare_exchange_weak_explicit(&p->left, &left, left - 1, memory_order_acquire, memory_order_relaxed))
            continue;
        p->fn(p->arg, p->n - left, thread);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        left = atomic_load_explicit(&p->left, memory_order_relaxed);
    }
}

static bool has_news(struct thread_pool *p)
{
    return atomic_load(&p->left) > 0 || atomic_load(&p->stop);
}

static void sleep_for_news(struct thread_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!has_news(p))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wake_all(struct thread_pool *p)
{
    if (atomic_load(&p->sleepers) == 0)
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct thread_pool *p = w->pool;
    if (p->on_start)
        p->on_start();
    while (!atomic_load_explicit(&p->stop, memory_order_acquire)) {
        unsigned turn = 0;
        int64_t start = 0;
        work(p, w->index);
        while (!has_news(p))
            if (!spin(p, &turn, &start))
                sleep_for_news(p);
    }
    return NULL;
}

void parallel_for(struct thread_pool *p, int n, void (*fn)(void *arg, int i, int thread), void *arg)
{
    if (n <= 1 || p->size == 1) {
        for (int i = 0; i < n; i++)
            fn(arg, i, 0);
        return;
    }
    assert(atomic_load_explicit(&p->left, memory_order_relaxed) == 0);
    p->fn = fn;
    p->arg = arg;
    p->n = n;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_store(&p->left, n);
    wake_all(p);
    work(p, 0);
    unsigned turn = 0;
    int64_t start = 0;
    while (atomic_load_explicit(&p->done, memory_order_acquire) < n)
        if (!spin(p, &turn, &start))
            sched_yield();
}

/* ---- a thread for each ---- */

struct part {
    void (*fn)(void *arg, int i);
    void *arg;
    int i;
    pthread_t thread;
    bool started;
};

static void *part_main(void *arg)
{
    const struct part *p = arg;
    p->fn(p->arg, p->i);
    return NULL;
}

void thread_each(int n, void (*fn)(void *arg, int i), void *arg)
{
    struct part parts[64];
    assert(n <= 64);
    for (int i = 0; i < n; i++)
        parts[i] = (struct part){.fn = fn, .arg = arg, .i = i};
    for (int i = 1; i < n; i++)
        parts[i].started = !pthread_create(&parts[i].thread, NULL, part_main, &parts[i]);
    for (int i = 0; i < n; i++)
        if (parts[i].started)
            pthread_join(parts[i].thread, NULL);
        else
            fn(arg, i);
}

/* ---- life ---- */

static int start_workers(struct thread_pool *p, struct err *err)
{
    for (int i = 1; i < p->size; i++) {
        struct worker *w = &p->workers[i];
        *w = (struct worker){.pool = p, .index = i};
        int e = pthread_create(&w->thread, NULL, worker_main, w);
        if (e)
            return err_set(err, ERR_NOMEM, "cannot start thread %d of %d: %s", i + 1, p->size, strerror(e));
        p->n_started = i;
    }
    return 0;
}

int thread_pool_new(int n_threads, void (*on_start)(void), struct thread_pool **ret_pool, struct err *err)
{
    assert(n_threads >= 1);
    struct thread_pool *p = aligned_alloc(CACHE_LINE, sizeof(*p));
    struct worker *workers = calloc((size_t)n_threads, sizeof(*workers));
    if (!p || !workers) {
        free(p);
        free(workers);
        return err_set(err, ERR_NOMEM, "no memory for %d threads", n_threads);
    }
    memset(p, 0, sizeof(*p));
    p->workers = workers;
    p->size = n_threads;
    p->on_start = on_start;
    p->oversubscribed = n_threads > thread_usable_count();
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    int r = start_workers(p, err);
    if (r < 0) {
        thread_pool_free(p);
        return r;
    }
    if (on_start)
        on_start();
    *ret_pool = p;
    return 0;
}

void thread_pool_free(struct thread_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    wake_all(p);
    for (int i = 1; i <= p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->workers);
    free(p);
}

int thread_pool_size(const struct thread_pool *p)
{
    return p->size;
}
