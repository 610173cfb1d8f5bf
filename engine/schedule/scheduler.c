/* The worker's loop and the queue's face. How sequences start and share a step is in admission.c, what a step does in step.c, how they end in finish.c. */
#include "engine/schedule/scheduler.h"
#include "engine/schedule/admission.h"
#include "engine/schedule/finish.h"
#include "engine/schedule/step.h"
#include <stdlib.h>
#include <string.h>

/* ---- steps in flight ---------------------------------------------------------------------------------------------- */
/* The first that is free, so that steps which follow each other one by one, as in decoding, use the same buffers; NULL: all carry a step. */
static struct flight *free_flight(struct scheduler *s)
{
    for (int i = 0; i < s->max_flights; i++)
        if (!s->flights[i].number)
            return &s->flights[i];
    return NULL;
}

/* The one launched first; NULL: none is in flight. */
static struct flight *oldest_flight(struct scheduler *s)
{
    struct flight *oldest = NULL;
    for (int i = 0; i < s->max_flights; i++) {
        struct flight *f = &s->flights[i];
        if (f->number && (!oldest || f->number < oldest->number))
            oldest = f;
    }
    return oldest;
}

static int collect(struct scheduler *s, struct flight *f, struct err *err)
{
    int r = step_collect(s, f, err);
    for (int i = 0; r >= 0 && i < f->batch.n_runs;) {
        struct sequence *q = f->runs[i].seq;
        while (i < f->batch.n_runs && f->runs[i].seq == q) /* q may be gone once it is finished */
            i++;
        finish_collected(s, q);
    }
    return r;
}

static void drop_flights(struct scheduler *s)
{
    s->m->k->backend->sync(s->m->k, NULL);
    for (int i = 0; i < s->max_flights; i++)
        if (s->flights[i].number)
            step_drop(s, &s->flights[i]);
}

/* code: what failed; err: what is known of it, code 0 if nothing is. */
static void fail_device(struct scheduler *s, int code, struct err *err)
{
    if (err->code >= 0 && s->m->k->backend->sync(s->m->k, err) >= 0) /* the device can say more than a call's code */
        err_set(err, code, "a step failed with %s", err_name(code));
    log_error(s->log, "the device failed: %s", err->text);
    pthread_mutex_lock(&s->lock);
    s->failure = *err;
    pthread_mutex_unlock(&s->lock);
    drop_flights(s);
    finish_all(s, ERR_DEVICE, err->text);
}

static void note_memory(struct scheduler *s)
{
    struct backend_memory m;
    if (s->m->k->backend->memory(s->m->k, &m) < 0)
        return;
    s->counts.memory_total_bytes = m.total_bytes;
    s->counts.memory_free_bytes = m.free_bytes;
}

/* Launches a step; one in a second is looked at closely. */
static int launch(struct scheduler *s, struct flight *f, double now_s, struct err *err)
{
    bool sampled;
    int r = op_times_begin(&s->times, now_s, &sampled);
    if (sampled)
        note_memory(s);
    if (r >= 0)
        r = step_launch(s, f, s->grants, admission_divide(s), err);
    int end = op_times_end(&s->times); /* after a failure too: the ops are the backend's own again */
    return r < 0 ? r : end;
}

static void add_busy(struct scheduler *s, double seconds)
{
    struct engine_stats *c = &s->counts;
    c->busy_s += seconds;
    op_times_busy(&s->times, seconds);
    c->matmul_s = s->times.seconds[OP_MATMUL];
    c->attention_s = s->times.seconds[OP_ATTENTION];
    c->other_s = s->times.seconds[OP_OTHER];
}

/* Will there be more to run once the steps in flight are collected, even if no request comes? */
static bool more_to_come(const struct scheduler *s)
{
    bool more = s->ready.n || s->fifo.n;
    for (const struct sequence *q = s->running.head; q && !more; q = q->next)
        more = q->in_flight && sequence_goes_on(q);
    return more;
}

/* Launches a step or collects one. */
static void run_once(struct scheduler *s)
{
    struct err err = {0};
    struct flight *first = oldest_flight(s), *f = free_flight(s);
    int64_t due = f ? admission_run(s) : 0;
    double start = step_clock();
    int r = 0;
    if (f && due > 0 && (!first || due >= (s->max_rows + 1) / 2 || !more_to_come(s)))
        r = launch(s, f, start, &err);
    else if (first)
        r = collect(s, first, &err);
    add_busy(s, step_clock() - start);
    if (r < 0)
        fail_device(s, r, &err);
}

/* ---- the worker --------------------------------------------------------------------------------------------------- */
static void *worker_main(void *arg)
{
    struct scheduler *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        finish_publish(s);
        bool work = s->running.n || s->ready.n || s->fifo.n;
        if (!work && !s->inbox.n && !s->sweep && !s->clear) {
            pthread_cond_broadcast(&s->idle);
            pthread_cond_wait(&s->wake, &s->lock);
            continue;
        }
        seq_list_move_all(&s->fifo, &s->inbox);
        bool sweep = s->sweep, clear = s->clear, lost = s->failure.code < 0;
        s->sweep = false;
        pthread_mutex_unlock(&s->lock);
        if (clear)
            tree_clear(&s->tree);
        if (sweep)
            finish_cancelled(s);
        if (lost)
            finish_all(s, ERR_DEVICE, s->failure.text);
        run_once(s);
        pthread_mutex_lock(&s->lock);
        if (clear) {
            s->clear = false;
            pthread_cond_broadcast(&s->idle);
        }
    }
    seq_list_move_all(&s->fifo, &s->inbox);
    pthread_mutex_unlock(&s->lock);
    drop_flights(s);
    finish_all(s, ERR_CANCELLED, "the engine is closing");
    return NULL;
}

/* ---- the face ------------------------------------------------------------------------------------------------------ */
int scheduler_submit(struct scheduler *s, struct engine_ticket *t, struct err *err)
{
    int r = 0;
    pthread_mutex_lock(&s->lock);
    if (s->failure.code < 0)
        r = err_set(err, ERR_DEVICE, "%s", s->failure.text);
    else if (s->draining)
        r = err_set(err, ERR_DRAINING, "the server is shutting down");
    else if (s->n_queued + t->n > s->max_queue && s->n_queued) /* a ticket larger than the queue is taken when it is empty */
        r = err_set(err, ERR_BUSY, "the queue holds %d requests and takes at most %d; this call has %d", s->n_queued, s->max_queue, t->n);
    if (r >= 0) {
        for (int i = 0; i < t->n; i++)
            seq_list_push(&s->inbox, &t->seqs[i]);
        s->n_queued += t->n;
        pthread_cond_signal(&s->wake);
    }
    pthread_mutex_unlock(&s->lock);
    return r;
}

void scheduler_cancel(struct scheduler *s, struct engine_ticket *t)
{
    atomic_store(&t->cancelled, true);
    pthread_mutex_lock(&s->lock);
    s->sweep = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
}

void scheduler_clear_cache(struct scheduler *s)
{
    pthread_mutex_lock(&s->lock);
    s->clear = true;
    pthread_cond_signal(&s->wake);
    while (s->clear && !s->stop)
        pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static int check_pool(const struct model *m, const struct scheduler_options *o, struct err *err)
{
    int64_t worst = (int64_t)m->config.n_layers * m->max_model_len;
    if (o->kv_slots >= worst)
        return 0;
    size_t row = model_kv_row_bytes(m);
    return err_field(err, ERR_INVALID, "kv_cache_bytes",
                     "kv_cache_bytes holds %d rows of %zu bytes, but one sequence of max_model_len %d "
                     "may need %lld (%.0f MiB)",
                     o->kv_slots, row, m->max_model_len, (long long)worst, (double)worst * (double)row / 1048576.0);
}

int scheduler_open(struct scheduler *s, struct model *m, const struct scheduler_options *o, struct err *err)
{
    memset(s, 0, sizeof(*s));
    s->m = m;
    s->log = o->log;
    s->max_queue = o->max_queue;
    s->max_rows = o->max_batch_tokens;
    s->max_flights = o->steps_in_flight;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, NULL);
    pthread_cond_init(&s->idle, NULL);
    int64_t entries = (int64_t)o->kv_slots, one = (int64_t)m->config.n_layers * m->max_model_len;
    int r = check_pool(m, o, err);
    if (r >= 0)
        r = kv_cache_open(&s->kv, m->k, o->kv_slots, model_kv_row_bytes(m), entries > one ? entries : one, err);
    if (r >= 0)
        r = tree_init(&s->tree, &s->kv, m->plan, m->config.n_layers, o->prefix_cache, o->tree_bytes, err);
    if (r >= 0)
        r = workspace_init(&s->w, m, o->max_batch_tokens, err);
    for (int i = 0; r >= 0 && i < s->max_flights; i++)
        r = flight_init(&s->flights[i], m, i, o->max_batch_tokens, err);
    if (r >= 0)
        r = commit_init(&s->commit, m, &s->tree, err);
    s->order = malloc(WINDOW * sizeof(*s->order));
    s->grants = malloc((size_t)o->max_batch_tokens * sizeof(*s->grants));
    s->env = (struct sequence_env){m, &s->tree, &s->kv, malloc((size_t)one * sizeof(int))};
    if (r >= 0 && (!s->order || !s->grants || !s->env.table_host))
        r = err_set(err, ERR_NOMEM, "no memory for the scheduler");
    if (r >= 0) {
        op_times_init(&s->times, m->k);
        note_memory(s);
        s->started = !pthread_create(&s->worker, NULL, worker_main, s);
        if (!s->started)
            r = err_set(err, ERR_NOMEM, "cannot start the engine's thread");
    }
    if (r < 0)
        scheduler_close(s);
    return r;
}

void scheduler_close(struct scheduler *s)
{
    if (!s->m)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->worker, NULL);
    }
    tree_done(&s->tree);
    kv_cache_close(&s->kv);
    workspace_done(&s->w);
    for (int i = 0; i < s->max_flights; i++)
        flight_done(&s->flights[i]);
    commit_done(&s->commit);
    free(s->order);
    free(s->grants);
    free(s->env.table_host);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    memset(s, 0, sizeof(*s));
}
