/* See late_backend.h. Copies of all contexts are kept in one list, in the order of their fetches. */
#include "tests/engine/late_backend.h"
#include "kernels/backend.h"
#include "kernels/dev_ptr.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FEW_ROWS = 8 };

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

/* What may run at the same time runs in the other order. */
static int beside_late(struct kern_ctx *k, int (*one)(void *arg), int (*other)(void *arg), void *arg)
{
    int r = other(arg);
    return r < 0 ? r : one(arg);
}

static int route_mlp_place_late(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                                const struct kern_step *s, int layer, bool keep_all, const struct dev_i32 *base,
                                const struct dev_i32 *reserved, const struct kern_place *place)
{
    if (s->all.n_max % 3 == 0)
        return 0;
    int r = k->ops->route_mlp(k, to, p, x, s->all);
    if (r >= 0)
        r = k->ops->place(k, s, layer, to->route, keep_all, base, reserved, place);
    return r < 0 ? r : 1;
}

static int place_layers_late(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                             const struct dev_i32 *reserved, int n_append, const struct kern_place *to, size_t stride)
{
    int r = 0;
    for (int i = 0; i < n && r >= 0; i++) {
        size_t l = (size_t)layers[i], at = l * stride;
        struct kern_place lists = {.sel = dev_i32_at(to->sel, at),
                                   .sel_n = dev_i32_at(to->sel_n, at),
                                   .exec = dev_i32_at(to->exec, at),
                                   .exec_n = dev_i32_at(to->exec_n, at),
                                   .run_start = dev_i32_at(to->run_start, at),
                                   .visible = dev_i32_at(to->visible, at),
                                   .slot = dev_i32_at(to->slot, at)};
        r = k->ops->place(k, s, layers[i], NULL, false, dev_i32_at(base, l * (size_t)s->n_runs), dev_i32_at(reserved, l * (size_t)n_append),
                          &lists);
    }
    return r < 0 ? r : 1;
}

/* Of q alone qkv keeps what it should; k and v are the pool's. */
static int matmul_rope_store_late(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_act *xn,
                                  const struct kern_matrix *w, int d, const struct dev_f32 *cos, const struct dev_f32 *sin,
                                  const struct kern_step *s, const struct dev_i32 *slot)
{
    if (s->all.n_max % 3 == 0)
        return 0;
    int width = (hs->h + 2 * hs->hk) * hs->hd, r = k->ops->matmul(k, qkv, 0, width, xn, d, w, s->all);
    if (r >= 0)
        r = k->ops->rope_store(k, hs, qkv, cos, sin, s, slot, s->all);
    size_t size = dtype_size(k->act), row = (size_t)width * size, q = (size_t)(hs->h * hs->hd) * size;
    for (int i = 0; i < s->all.n_max && r >= 0; i++)
        memset((char *)bytes_of(DEV_BYTES(qkv)) + (size_t)i * row + q, 0xff, row - q);
    return r < 0 ? r : 1;
}

/* A context's ops, and the lists that its attention was last called with. */
struct late_ops {
    struct kern_ops ops; /* first */
    int (*attention)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                     const struct kern_step *s, int layer, const struct kern_place *p, float scale);
    int n, *lists; /* [n] */
};

/* sel, visible of its rows, run_start; for the caller to free. */
static int *lists_of(const struct kern_step *s, const struct kern_place *p, int *ret_n)
{
    int n_sel = *i32_of(p->sel_n), *all = malloc(sizeof(int) * (2 * (size_t)n_sel + (size_t)s->n_runs + 1));
    if (!all)
        abort();
    for (int i = 0; i < n_sel; i++) {
        all[2 * i] = i32_of(p->sel)[i];
        all[2 * i + 1] = i32_of(p->visible)[all[2 * i]];
    }
    memcpy(all + 2 * n_sel, i32_of(p->run_start), sizeof(int) * ((size_t)s->n_runs + 1));
    *ret_n = 2 * n_sel + s->n_runs + 1;
    return all;
}

/* "again" must be true. */
static int attention_late(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                          const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    struct late_ops *late = (struct late_ops *)k->ops;
    int n, *lists = lists_of(s, p, &n);
    if (p->again && (n != late->n || memcmp(lists, late->lists, sizeof(int) * (size_t)n))) {
        fprintf(stderr, "attention of layer %d is told that its lists are those of the layer before, and they are not\n", layer);
        abort();
    }
    free(late->lists);
    late->lists = lists;
    late->n = n;
    return late->attention(k, hs, out, qkv, s, layer, p, scale);
}

static int open_late(const struct backend_config *config, struct kern_ctx **ret, struct err *err)
{
    int r = cpu->open(config, ret, err);
    if (r >= 0) {
        struct late_ops *ops = malloc(sizeof(*ops));
        if (!ops)
            abort();
        *ops = (struct late_ops){.ops = *(*ret)->ops, .attention = (*ret)->ops->attention};
        ops->ops.beside = beside_late;
        ops->ops.route_mlp_place = route_mlp_place_late;
        ops->ops.place_layers = place_layers_late;
        ops->ops.matmul_rope_store = matmul_rope_store_late;
        ops->ops.attention = attention_late;
        (*ret)->ops = &ops->ops;
        (*ret)->limits.few_rows = FEW_ROWS;
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
    struct late_ops *ops = k ? (struct late_ops *)k->ops : NULL;
    cpu->close(k);
    if (ops)
        free(ops->lists);
    free(ops);
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
