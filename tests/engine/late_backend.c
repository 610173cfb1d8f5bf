/* See late_backend.h. Copies of all contexts are kept in one list, in the order of their fetches. */
#include "tests/engine/late_backend.h"
#include "kernels/backend.h"
#include "tests/engine/late_ops.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct copy {
    struct copy *next;
    struct kern_ctx *k;
    void *dst;
    size_t n;
    int mark; /* -1: no mark follows it yet */
    char bytes[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct copy *first, **end = &first;
static const struct backend *cpu;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static bool held;
static int fail_at, n_calls, fail_device = -1;
static const struct kern_ctx *contexts[BACKEND_CPU_DEVICES]; /* the latest of each device */

void late_fail_device_at(int device_index, int n)
{
    pthread_mutex_lock(&lock);
    fail_device = device_index;
    fail_at = n;
    n_calls = 0;
    pthread_mutex_unlock(&lock);
}

void late_fail_at(int n)
{
    late_fail_device_at(-1, n);
}

void late_hold(bool hold)
{
    pthread_mutex_lock(&lock);
    held = hold;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&lock);
}

/* The lock is held. */
static bool failed(const struct kern_ctx *k)
{
    return fail_at && (fail_device < 0 || k == contexts[fail_device]) && ++n_calls >= fail_at;
}

static int upload_late(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes)
{
    pthread_mutex_lock(&lock);
    bool bad = failed(k);
    pthread_mutex_unlock(&lock);
    return bad ? ERR_DEVICE : cpu->upload(k, dst, src, bytes);
}

static int fetch_late(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    pthread_mutex_lock(&lock);
    bool bad = failed(k);
    struct copy *c = bad ? NULL : malloc(sizeof(*c) + bytes);
    if (c) {
        *c = (struct copy){.k = k, .dst = dst, .n = bytes, .mark = -1};
        if (bytes) {
            cpu->download(k, c->bytes, src, bytes);
            memset(dst, 0xa5, bytes);
        }
        *end = c;
        end = &c->next;
    }
    pthread_mutex_unlock(&lock);
    return c ? 0 : ERR_DEVICE;
}

static int mark_late(struct kern_ctx *k, int i)
{
    pthread_mutex_lock(&lock);
    bool bad = failed(k);
    for (struct copy *c = first; c && !bad; c = c->next)
        if (c->k == k && c->mark < 0)
            c->mark = i;
    pthread_mutex_unlock(&lock);
    return bad ? ERR_DEVICE : 0;
}

/* Takes the copies of k out of the list that mark i follows, with those before them (every copy: i < 0), and lets them arrive. */
static void arrive(struct kern_ctx *k, int i)
{
    struct copy **at = &first;
    const struct copy *last = NULL;
    for (const struct copy *c = first; c; c = c->next)
        last = c->k == k && c->mark == i ? c : last;
    while (*at) {
        struct copy *c = *at;
        bool later = i >= 0 && !last;
        last = c == last ? NULL : last;
        if (c->k != k || later) {
            at = &c->next;
            continue;
        }
        if (i >= 0 && c->n)
            memcpy(c->dst, c->bytes, c->n);
        *at = c->next;
        free(c);
    }
    end = at;
}

static int wait_late(struct kern_ctx *k, int i, struct err *err)
{
    pthread_mutex_lock(&lock);
    while (held)
        pthread_cond_wait(&released, &lock);
    bool bad = failed(k);
    if (!bad)
        arrive(k, i);
    pthread_mutex_unlock(&lock);
    return bad ? err_set(err, ERR_DEVICE, "the device was asked to fail") : 0;
}

static int sync_late(struct kern_ctx *k, struct err *err)
{
    pthread_mutex_lock(&lock);
    bool bad = fail_at && (fail_device < 0 || k == contexts[fail_device]) && n_calls >= fail_at;
    pthread_mutex_unlock(&lock);
    return bad ? err_set(err, ERR_DEVICE, "the device was asked to fail") : 0;
}

static int open_late(const struct backend_config *config, struct kern_ctx **ret, struct err *err)
{
    int r = cpu->open(config, ret, err);
    if (r >= 0) {
        (*ret)->ops = late_ops_new((*ret)->ops);
        (*ret)->limits.few_rows = LATE_FEW_ROWS;
        (*ret)->backend = late_backend();
        pthread_mutex_lock(&lock);
        contexts[config->device_index] = *ret;
        pthread_mutex_unlock(&lock);
    }
    return r;
}

static void close_late(struct kern_ctx *k)
{
    pthread_mutex_lock(&lock);
    arrive(k, -1);
    pthread_mutex_unlock(&lock);
    const struct kern_ops *ops = k ? k->ops : NULL;
    cpu->close(k);
    late_ops_free(ops);
}

static struct backend late;

static void make_late(void)
{
    struct err err;
    if (backend_find("cpu", &cpu, &err) < 0)
        abort();
    late = *cpu;
    late.open = open_late;
    late.close = close_late;
    late.upload = upload_late;
    late.fetch = fetch_late;
    late.mark = mark_late;
    late.wait = wait_late;
    late.sync = sync_late;
}

/* Replicas and ranks are opened at once. */
const struct backend *late_backend(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_late);
    return &late;
}
