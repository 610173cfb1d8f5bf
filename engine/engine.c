/* The engine's face: checks requests, owns tickets, and hides the scheduler. */
#include "engine/engine.h"
#include "engine/schedule/scheduler.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct engine {
    struct model m;
    struct scheduler s;
    struct engine_info info;
};

/* ---- open and close ------------------------------------------------------------------------------------------- */
/* Without a stated size the pool takes an eighth of free memory, but no more than 64 sequences of full length; it never takes more than is free. */
static int pool_slots(const struct model *m, size_t wanted_bytes, struct err *err)
{
    size_t row = model_kv_row_bytes(m) + sizeof(int), one = (size_t)m->config.n_layers * (size_t)m->max_model_len, n = wanted_bytes / row;
    struct backend_memory mem;
    int r = m->k->backend->memory(m->k, &mem);
    if (r < 0)
        return err_set(err, r, "the device does not tell how much memory is free");
    if (!wanted_bytes) {
        n = mem.free_bytes / 8 / row;
        n = n > 64 * one ? 64 * one : n;
        n = n < one ? one : n;
    }
    if (n > mem.free_bytes / row)
        return err_field(err, ERR_NOMEM, "kv_cache_bytes",
                         "the KV cache needs %zu MiB (kv_cache_bytes), and %zu of the %s device's %zu MiB are free", n * row >> 20,
                         mem.free_bytes >> 20, m->k->backend->name, mem.total_bytes >> 20);
    return n > INT32_MAX / 2 ? INT32_MAX / 2 : (int)n;
}

static void fill_info(struct engine *e)
{
    const struct model *m = &e->m;
    e->info = (struct engine_info){.config = &m->config,
                                   .plan = m->plan,
                                   .device = m->k->backend->name,
                                   .dtype = dtype_name(m->k->act),
                                   .numerics_class = m->k->backend->numerics_class(m->k),
                                   .model_hash = m->hash,
                                   .max_model_len = m->max_model_len,
                                   .max_batch_tokens = e->s.max_rows,
                                   .n_threads = m->n_threads,
                                   .bos_id = m->config.bos_id,
                                   .eos_id = m->config.eos_id,
                                   .kv_rows_total = (size_t)e->s.kv.n_slots,
                                   .kv_row_bytes = e->s.kv.row_bytes,
                                   .weight_bytes = m->weights.bytes,
                                   .workspace_bytes = e->s.w.bytes};
}

int engine_open(const struct engine_options *o, struct engine **ret, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (!e)
        return err_set(err, ERR_NOMEM, "no memory for the engine");
    assert(o->steps_in_flight >= 0 && o->steps_in_flight <= STEPS_IN_FLIGHT_MAX);
    int r = model_open(o, &e->m, err);
    if (r >= 0)
        r = pool_slots(&e->m, o->kv_cache_bytes, err);
    if (r >= 0) {
        bool cuda = !strcmp(e->m.k->backend->name, "cuda");
        struct scheduler_options so = {.max_batch_tokens = o->max_batch_tokens ? o->max_batch_tokens
                                                           : cuda              ? 16384
                                                                               : 512,
                                       .max_queue = o->max_queue ? o->max_queue : 65536,
                                       .kv_slots = r,
                                       .prefix_cache = o->prefix_cache,
                                       .steps_in_flight = o->steps_in_flight ? o->steps_in_flight
                                                          : cuda             ? 2
                                                                             : 1,
                                       .tree_bytes = (size_t)r * model_kv_row_bytes(&e->m) / 8 + (16u << 20),
                                       .log = o->log};
        r = scheduler_open(&e->s, &e->m, &so, err);
    }
    if (r < 0) {
        engine_close(e);
        return r;
    }
    fill_info(e);
    *ret = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    scheduler_close(&e->s);
    model_close(&e->m);
    free(e);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
    pthread_mutex_lock(&e->s.lock);
    *ret = e->s.published;
    ret->queued = e->s.n_queued;
    ret->running = e->s.n_running;
    pthread_mutex_unlock(&e->s.lock);
}

int engine_health(struct engine *e, struct err *err)
{
    pthread_mutex_lock(&e->s.lock);
    int code = e->s.failure.code;
    if (code < 0 && err)
        *err = e->s.failure;
    pthread_mutex_unlock(&e->s.lock);
    return code;
}

void engine_drain(struct engine *e)
{
    pthread_mutex_lock(&e->s.lock);
    e->s.draining = true;
    pthread_mutex_unlock(&e->s.lock);
}

void engine_cache_clear(struct engine *e)
{
    scheduler_clear_cache(&e->s);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */
static int check_ids(const struct eval_request *q, int i, int vocab, struct err *err)
{
    for (int t = 0; t < q->n_tokens; t++)
        if (q->tokens[t] < 0 || q->tokens[t] >= vocab)
            return err_field(err, ERR_INVALID, "tokens", "token %d of sequence %d is %d; ids go from 0 to %d", t, i, q->tokens[t],
                             vocab - 1);
    return 0;
}

static int check_request(const struct engine *e, const struct eval_request *q, int i, struct err *err)
{
    const struct engine_info *f = &e->info;
    if (q->n_tokens < 1)
        return err_field(err, ERR_INVALID, "tokens", "sequence %d has no tokens; at least 1 is needed", i);
    if (q->score_begin < 1 || q->score_begin > q->n_tokens)
        return err_field(err, ERR_INVALID, "score_begin", "score_begin of sequence %d is %d; it must be in 1..%d", i, q->score_begin,
                         q->n_tokens);
    if (q->max_new < 0 || q->max_new > f->max_model_len)
        return err_field(err, ERR_INVALID, "max_new", "max_new is %d; it must be in 0..%d (max_model_len)", q->max_new, f->max_model_len);
    if (q->n_tokens - 1 > f->max_model_len - q->max_new)
        return err_field(err, ERR_INVALID, "tokens",
                         "sequence %d has %d tokens and asks for %d more, which computes %lld positions; "
                         "max_model_len is %d",
                         i, q->n_tokens, q->max_new, (long long)q->n_tokens - 1 + q->max_new, f->max_model_len);
    int top = f->config->vocab < ENGINE_TOP_K_MAX ? f->config->vocab : ENGINE_TOP_K_MAX;
    if (q->top_k < 0 || q->top_k > top)
        return err_field(err, ERR_INVALID, "top_k", "top_k is %d; it must be in 0..%d", q->top_k, top);
    if (!(q->temperature >= 0) || !(q->top_p > 0 && q->top_p <= 1) || q->sample_top_k < 0)
        return err_field(err, ERR_INVALID, "temperature",
                         "temperature %g must be at least 0, top_p %g in (0, 1], sample_top_k %d at least 0", (double)q->temperature,
                         (double)q->top_p, q->sample_top_k);
    return check_ids(q, i, f->config->vocab, err);
}

static void free_ticket(struct engine_ticket *t)
{
    for (int i = 0; t->seqs && i < t->n; i++)
        sequence_release(&t->seqs[i]);
    free(t->seqs);
    pthread_cond_destroy(&t->done);
    free(t);
}

static int new_ticket(struct engine *e, const struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err)
{
    struct engine_ticket *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(err, ERR_NOMEM, "no memory for %d requests", n);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->done, &attr);
    pthread_condattr_destroy(&attr);
    t->owner = &e->s;
    t->n = t->remaining = n;
    t->seqs = calloc((size_t)n, sizeof(*t->seqs));
    int r = t->seqs ? 0 : ERR_NOMEM;
    for (int i = 0; r >= 0 && i < n; i++)
        r = sequence_prepare(&t->seqs[i], &reqs[i], &e->m, t);
    if (r < 0) {
        free_ticket(t);
        return err_set(err, ERR_NOMEM, "no memory for the results of %d requests", n);
    }
    *ret = t;
    return 0;
}

int engine_submit(struct engine *e, const struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err)
{
    struct engine_ticket *t = NULL;
    if (n < 1)
        return err_field(err, ERR_INVALID, "requests", "a call needs at least one sequence");
    for (int i = 0; i < n; i++) {
        int r = check_request(e, &reqs[i], i, err);
        if (r < 0)
            return r;
    }
    int r = new_ticket(e, reqs, n, &t, err);
    if (r < 0)
        return r;
    r = scheduler_submit(&e->s, t, err);
    if (r < 0)
        free_ticket(t);
    else
        *ret = t;
    return r;
}

bool engine_full(struct engine *e)
{
    pthread_mutex_lock(&e->s.lock);
    bool full = e->s.n_queued >= e->s.max_queue;
    pthread_mutex_unlock(&e->s.lock);
    return full;
}

size_t engine_request_bytes(const struct engine *e, const struct eval_request *q)
{
    return sequence_bytes(q, &e->m);
}

bool engine_wait(struct engine_ticket *t, int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&t->owner->lock);
    int r = 0;
    while (t->remaining && r != ETIMEDOUT)
        r = timeout_ms < 0 ? pthread_cond_wait(&t->done, &t->owner->lock) : pthread_cond_timedwait(&t->done, &t->owner->lock, &until);
    bool done = !t->remaining;
    pthread_mutex_unlock(&t->owner->lock);
    return done;
}

const struct eval_result *engine_result(const struct engine_ticket *t, int i)
{
    return &t->seqs[i].result;
}

int engine_tokens(const struct engine_ticket *t, int i)
{
    return atomic_load_explicit(&t->seqs[i].n_shown, memory_order_acquire);
}

void engine_stop(struct engine_ticket *t, int i)
{
    atomic_store(&t->seqs[i].stopped, true);
}

void engine_cancel(struct engine_ticket *t)
{
    scheduler_cancel(t->owner, t);
}

void engine_ticket_free(struct engine_ticket *t)
{
    if (!t)
        return;
    if (!engine_wait(t, 0)) {
        engine_cancel(t);
        engine_wait(t, -1);
    }
    free_ticket(t);
}
