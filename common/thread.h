/* Worker pool for data-parallel loops, and how many threads this process may use.
 *
 * parallel_for hands out the indices 0..n-1 one at a time from a shared counter: which thread runs an
 * index is not defined, so a task's result must depend on its index alone. Workers spin for a short time
 * (tens of microseconds) before they sleep, because a forward pass issues loops back to back. */
#pragma once
#include "common/err.h"
#include <stdbool.h>

struct thread_pool;

/* Threads usable by this process: the smaller of the affinity mask and the cgroup CPU quota (v1 and v2,
 * rounded up), at least 1. */
int thread_usable_count(void);

/* n_threads >= 1 counts the caller: n_threads - 1 workers are started. `on_start` (may be NULL) runs
 * once in each worker, and in the caller during this call, for per-thread set-up. */
int thread_pool_new(int n_threads, void (*on_start)(void), struct thread_pool **ret_pool, struct err *err);
void thread_pool_free(struct thread_pool *p);
int thread_pool_size(const struct thread_pool *p);

/* Runs fn(arg, i) for i in 0..n-1 at once, each in a thread of its own but for the first, which the caller runs, and returns when all are done. Where a
 * thread cannot be started the caller runs its part too, in order of i: so part i may wait for parts before it, never for later ones. n <= 64. */
void thread_each(int n, void (*fn)(void *arg, int i), void *arg);

/* Runs fn(arg, i, thread) for i in 0..n-1 and returns when all are done; `thread` is 0 for the caller,
 * else 1..size-1. Only one thread may call it at a time; fn must not call it again. */
void parallel_for(struct thread_pool *p, int n, void (*fn)(void *arg, int i, int thread), void *arg);
