/* Queueing, admission and the worker's loop. What a step does with its rows is in step.c. */
#include "engine/scheduler.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "engine/step.h"

#define WINDOW 1024   /* sequences sorted into prefix order at a time */

/* ---- finishing -------------------------------------------------------------------------------------------------- */
static void count_result(struct engine_stats *c, const struct sequence *s)
{
    if (s->result.code == ERR_CANCELLED)
        c->requests_cancelled++;
    else if (s->result.code < 0)
        c->requests_failed++;
    else
        c->requests_done++;
    if (s->result.code >= 0) {
        c->tokens_scored += (uint64_t)s->result.n_scored;
        c->tokens_generated += (uint64_t)s->n_new;
        c->rows_cached += (uint64_t)s->n_cached;
    }
}

/* What engine_stats shows from now on; the lock is held. */
static void publish(struct scheduler *s)
{
    s->counts.kv_rows_held = (uint64_t)s->tree.held_slots;
    s->counts.kv_rows_reserved = 0;
    for (struct sequence *q = s->running.head; q; q = q->next)
        s->counts.kv_rows_reserved += (uint64_t)q->promised;
    s->counts.tree_nodes = s->tree.n_linked;
    s->counts.tree_tokens = s->tree.tokens;
    s->counts.evicted_tokens = s->tree.evicted_tokens;
    s->published = s->counts;
}

/* Counts a finished sequence and tells its ticket; the sequence is in no list any more. The ticket may be gone afterwards. */
static void hand_over(struct scheduler *s, struct sequence *q)
{
    struct engine_ticket *t = q->ticket;
    count_result(&s->counts, q);
    pthread_mutex_lock(&s->lock);
    publish(s);   /* a client that has its answer finds it counted, its rows included */
    if (!--t->remaining)
        pthread_cond_broadcast(&t->done);
    pthread_mutex_unlock(&s->lock);
}

static void finish_queued(struct scheduler *s, struct seq_list *l, struct sequence *q, int code, const struct err *err)
{
    seq_list_remove(l, q);
    pthread_mutex_lock(&s->lock);
    s->n_queued--;
    pthread_mutex_unlock(&s->lock);
    if (!q->done)
        sequence_finish(q, &s->env, code, err);
    hand_over(s, q);
}

static void finish_running(struct scheduler *s, struct sequence *q, int code, const struct err *err)
{
    seq_list_remove(&s->running, q);
    pthread_mutex_lock(&s->lock);
    s->n_running--;
    pthread_mutex_unlock(&s->lock);
    if (!q->done)
        sequence_finish(q, &s->env, code, err);
    hand_over(s, q);
}

static void finish_list(struct scheduler *s, struct seq_list *l, bool all, int code, const struct err *err)
{
    for (struct sequence *q = l->head, *next; q; q = next) {
        next = q->next;
        if (!all && !atomic_load(&q->ticket->cancelled))
            continue;
        if (l == &s->running)
            finish_running(s, q, code, err);
        else
            finish_queued(s, l, q, code, err);
    }
}

/* Ends every sequence, or those of cancelled tickets. */
static void finish_many(struct scheduler *s, bool all, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "%s", text);
    finish_list(s, &s->running, all, code, &err);
    finish_list(s, &s->ready, all, code, &err);
    finish_list(s, &s->fifo, all, code, &err);
}

/* ---- admission --------------------------------------------------------------------------------------------------- */
static int by_tokens(const void *a, const void *b)
{
    const struct eval_request *x = (*(struct sequence *const *)a)->req, *y = (*(struct sequence *const *)b)->req;
    int n = x->n_tokens < y->n_tokens ? x->n_tokens : y->n_tokens;
    for (int i = 0; i < n; i++)
        if (x->tokens[i] != y->tokens[i])
            return x->tokens[i] < y->tokens[i] ? -1 : 1;
    return (x->n_tokens > y->n_tokens) - (x->n_tokens < y->n_tokens);
}

/* Moves the next window of the queue, in prefix order, to the end of `ready`. */
static bool refill_ready(struct scheduler *s)
{
    int n = 0;
    while (n < WINDOW && s->fifo.n) {
        s->order[n] = s->fifo.head;
        seq_list_remove(&s->fifo, s->order[n++]);
    }
    qsort(s->order, (size_t)n, sizeof(*s->order), by_tokens);
    for (int i = 0; i < n; i++)
        seq_list_push(&s->ready, s->order[i]);
    return n > 0;
}

/* A sequence that was admitted runs, unless the tree had all of it. */
static void start_running(struct scheduler *s, struct sequence *q)
{
    seq_list_remove(&s->ready, q);
    pthread_mutex_lock(&s->lock);
    s->n_queued--;
    s->n_running++;
    pthread_mutex_unlock(&s->lock);
    seq_list_push(&s->running, q);
    if (!sequence_due(q))
        finish_running(s, q, 0, NULL);
}

/* Admits queued sequences until the rows that could run fill a step. */
static void admit(struct scheduler *s, int64_t due)
{
    int64_t promised = 0;   /* KV slots set aside for running sequences, the new ones included */
    for (struct sequence *r = s->running.head; r; r = r->next)
        promised += r->promised;
    struct sequence *q = s->ready.head;
    for (;;) {
        if (due >= s->batch.max_rows || s->running.n >= s->batch.max_rows)
            return;
        if (!q) {
            struct sequence *last = s->ready.tail;
            if (!refill_ready(s))
                return;
            q = last ? last->next : s->ready.head;
        }
        struct sequence *next = q->next;
        switch (sequence_admit(q, &s->env, promised)) {
        case ADMIT_DONE:
            due += sequence_due(q);
            promised += q->promised;
            start_running(s, q);
            break;
        case ADMIT_FAILED:
            finish_queued(s, &s->ready, q, 0, NULL);
            break;
        case ADMIT_WAIT_ROOM:
            return;
        case ADMIT_WAIT_PREFIX:
            break;
        }
        q = next;
    }
}

/* ---- who gets how many rows ------------------------------------------------------------------------------------- */
static int divide_step(struct scheduler *s)
{
    int n = 0, left = s->batch.max_rows;
    bool others = s->running.n > 1 || s->ready.n || s->fifo.n;
    int cap = others && left > 1 ? left / 2 : left;
    for (struct sequence *q = s->running.head; q; q = q->next) {   /* one row for every generating sequence */
        int due = sequence_due(q);
        s->grants[n++] = (struct grant){q, q->n_new && due ? 1 : 0, due};
        left -= s->grants[n - 1].n;
    }
    for (int i = 0; i < n && left; i++) {
        struct grant *g = &s->grants[i];
        int more = g->due < cap ? g->due - g->n : cap - g->n;
        more = more < left ? more : left;
        g->n += more;
        left -= more;
    }
    for (int i = 0; i < n && left; i++) {   /* nobody else can use what is left */
        struct grant *g = &s->grants[i];
        int more = g->due - g->n < left ? g->due - g->n : left;
        g->n += more;
        left -= more;
    }
    return n;
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fail_device(struct scheduler *s, const struct err *err)
{
    log_error(s->log, "the device failed: %s", err->text);
    pthread_mutex_lock(&s->lock);
    s->failure = *err;
    pthread_mutex_unlock(&s->lock);
    finish_many(s, true, ERR_DEVICE, err->text);
}

static void run_once(struct scheduler *s)
{
    struct err err = {0};
    int64_t due = 0;
    for (struct sequence *q = s->running.head; q; q = q->next)
        due += sequence_due(q);
    admit(s, due);
    int n = divide_step(s);
    if (!n)
        return;
    double start = now_s();
    int r = step_run(s, s->grants, n, &err);
    s->counts.busy_s += now_s() - start;
    if (r < 0) {
        fail_device(s, &err);
        return;
    }
    for (struct sequence *q = s->running.head, *next; q; q = next) {
        next = q->next;
        if (q->done || q->result.finish != FINISH_NONE || !sequence_due(q))
            finish_running(s, q, 0, NULL);
    }
}

static void *worker_main(void *arg)
{
    struct scheduler *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        publish(s);
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
            finish_many(s, false, ERR_CANCELLED, "the request was cancelled");
        if (lost)
            finish_many(s, true, ERR_DEVICE, s->failure.text);
        run_once(s);
        pthread_mutex_lock(&s->lock);
        if (clear) {
            s->clear = false;
            pthread_cond_broadcast(&s->idle);
        }
    }
    seq_list_move_all(&s->fifo, &s->inbox);
    pthread_mutex_unlock(&s->lock);
    finish_many(s, true, ERR_CANCELLED, "the engine is closing");
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
    else if (s->n_queued + t->n > s->max_queue && s->n_queued)   /* a ticket larger than the queue is taken when it is empty */
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
    return err_field(err, ERR_INVALID, "kv-cache-memory", "kv-cache-memory holds %d rows of %zu bytes, but one sequence of max-model-len %d "
                     "may need %lld (%.0f MiB)", o->kv_slots, row, m->max_model_len, (long long)worst, (double)worst * (double)row / 1048576.0);
}

int scheduler_open(struct scheduler *s, struct model *m, const struct scheduler_options *o, struct err *err)
{
    size_t rows = (size_t)o->max_batch_tokens, layers = (size_t)m->config.n_layers;
    memset(s, 0, sizeof(*s));
    s->m = m;
    s->log = o->log;
    s->max_queue = o->max_queue;
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
    if (r >= 0)
        r = batch_init(&s->batch, m->k, o->max_batch_tokens, m->config.n_layers, err);
    if (r >= 0)
        r = scores_init(&s->scores, o->max_batch_tokens, err);
    s->order = malloc(WINDOW * sizeof(*s->order));
    s->grants = malloc(rows * sizeof(*s->grants));
    s->runs = malloc(rows * sizeof(*s->runs));
    s->wants = malloc(rows * sizeof(*s->wants));
    s->route_host = malloc(rows * layers);
    s->cursor = malloc((2 + COMMIT_ROWS) * layers * sizeof(int));
    s->env = (struct sequence_env){m, &s->tree, &s->kv, malloc((size_t)one * sizeof(int))};
    if (r >= 0 && (!s->order || !s->grants || !s->runs || !s->wants || !s->route_host || !s->cursor || !s->env.table_host))
        r = err_set(err, ERR_NOMEM, "no memory for the scheduler");
    if (r >= 0) {
        s->cursor_before = s->cursor + layers;
        s->row_slots = s->cursor_before + layers;
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
    batch_done(&s->batch);
    scores_done(&s->scores);
    free(s->order);
    free(s->grants);
    free(s->runs);
    free(s->wants);
    free(s->route_host);
    free(s->cursor);
    free(s->env.table_host);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    pthread_cond_destroy(&s->idle);
    memset(s, 0, sizeof(*s));
}
