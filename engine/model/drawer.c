/* A thread pool, and for each of its threads a sampler. */
#include "engine/model/drawer.h"
#include "common/thread.h"
#include "engine/model/logit_edits.h"
#include <stdlib.h>

struct drawer {
    int v, capacity, n_threads;
    struct thread_pool *pool;
    float *logits; /* [capacity, v] */
    struct {
        struct sampler *sampler;
        int32_t *counts; /* [v] zeros: scratch of logit_edits_apply */
    } threads[DRAWER_THREADS_MAX];
    /* of one run */
    const struct draw *const *draws;
    int32_t *tokens;
};

static int allocate(struct drawer *d)
{
    size_t row = (size_t)d->v * sizeof(float), rows = DRAWER_BYTES / row;
    d->capacity = rows < 1 ? 1 : rows > 1024 ? 1024 : (int)rows;
    d->logits = malloc((size_t)d->capacity * row);
    int r = d->logits ? 0 : ERR_NOMEM;
    for (int i = 0; r >= 0 && i < d->n_threads; i++) {
        d->threads[i].counts = calloc((size_t)d->v, sizeof(int32_t));
        r = d->threads[i].counts ? sampler_new(d->v, &d->threads[i].sampler) : ERR_NOMEM;
    }
    return r;
}

int drawer_new(int vocab, int n_threads, struct drawer **ret, struct err *err)
{
    struct drawer *d = calloc(1, sizeof(*d));
    if (!d)
        return err_set(err, ERR_NOMEM, "no memory to draw tokens");
    d->v = vocab;
    d->n_threads = n_threads < DRAWER_THREADS_MAX ? n_threads : DRAWER_THREADS_MAX;
    int r = allocate(d);
    if (r < 0)
        err_set(err, r, "no memory to draw tokens");
    else
        r = thread_pool_new(d->n_threads, NULL, &d->pool, err);
    if (r < 0) {
        drawer_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void drawer_free(struct drawer *d)
{
    if (!d)
        return;
    if (d->pool)
        thread_pool_free(d->pool);
    for (int i = 0; i < DRAWER_THREADS_MAX; i++) {
        sampler_free(d->threads[i].sampler);
        free(d->threads[i].counts);
    }
    free(d->logits);
    free(d);
}

int drawer_capacity(const struct drawer *d)
{
    return d->capacity;
}

float *drawer_logits(const struct drawer *d, int i)
{
    return d->logits + (size_t)i * (size_t)d->v;
}

static bool finite_row(const float *logits, int v)
{
    for (int i = 0; i < v; i++)
        if (!(logits[i] - logits[i] == 0))
            return false;
    return true;
}

static int32_t greedy(const float *logits, int v)
{
    int32_t best = 0;
    for (int i = 1; i < v; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static void draw_row(void *arg, int i, int thread)
{
    struct drawer *d = arg;
    const struct draw *how = d->draws[i];
    float *logits = drawer_logits(d, i);
    d->tokens[i] = -1;
    if (!finite_row(logits, d->v))
        return;
    if (how->edits)
        logit_edits_apply(logits, d->v, how->edits, how->params->temperature, &how->history, d->threads[thread].counts);
    d->tokens[i] =
        how->params->temperature > 0 ? sampler_pick(d->threads[thread].sampler, logits, how->params, how->index) : greedy(logits, d->v);
}

void drawer_run(struct drawer *d, const struct draw *const *draws, int n, int32_t *ret)
{
    d->draws = draws;
    d->tokens = ret;
    parallel_for(d->pool, n, draw_row, d);
}
