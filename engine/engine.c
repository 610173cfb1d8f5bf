/* The engine's face: puts executors, queue and workers together, checks requests, owns tickets. */
#include "engine/engine.h"
#include "common/thread.h"
#include "engine/devices.h"
#include "engine/engine_private.h"
#include "engine/model/hash_job.h"
#include "engine/schedule/dispatch.h"
#include "engine/schedule/group_executor.h"
#include "engine/schedule/ticket.h"
#include "engine/schedule/worker.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct engine {
    struct devices devices;
    int n;                                        /* replicas: devices.n, or that divided by the ranks of a group */
    struct group_executor *x[ENGINE_DEVICES_MAX]; /* [n]; the first one's model may be the others' as well */
    struct worker *workers;                       /* [n] */
    struct queue queue;
    struct dispatch dispatch; /* of several devices */
    struct engine_info info;
};

_Static_assert(ENGINE_LANES == LANES, "a name for each lane");

/* ---- open and close ------------------------------------------------------------------------------------------- */
static void add_replica(struct engine_info *info, struct group_executor *x, int index, int i)
{
    const struct executor_limits *l = &group_executor_face(x)->limits;
    info->device_index[i] = index;
    info->kv_rows_total += (size_t)l->n_kv_slots;
    info->state_slots_total += (size_t)l->n_state_slots;
    for (int rank = 0; rank < group_executor_size(x); rank++) {
        const struct model *m = device_executor_model(group_executor_rank(x, rank));
        info->n_threads += m->n_threads;
        info->kv_row_bytes += i ? 0 : model_kv_row_bytes(m);
        info->state_slot_bytes += i ? 0 : model_state_bytes(m);
        info->weight_bytes += m->borrows ? 0 : m->weights.bytes;
        info->workspace_bytes += device_executor_workspace_bytes(group_executor_rank(x, rank));
    }
}

static void fill_info(struct engine *e)
{
    const struct model *m = device_executor_model(group_executor_rank(e->x[0], 0));
    const struct executor_limits *l = &group_executor_face(e->x[0])->limits;
    e->info = (struct engine_info){.config = &m->config,
                                   .plan = m->plan,
                                   .device = m->k->backend->name,
                                   .dtype = dtype_name(m->k->act),
                                   .host_memory = m->k->limits.host_memory,
                                   .numerics_class = m->k->backend->numerics_class(m->k),
                                   .level = m->k->limits.levels[m->k->limits.level],
                                   .max_model_len = m->max_model_len,
                                   .max_batch_tokens = l->max_rows,
                                   .n_devices = e->n,
                                   .n_ranks = group_executor_size(e->x[0]),
                                   .bos_id = m->config.bos_id,
                                   .eos_id = m->config.eos_id};
    for (int i = 0; i < e->n; i++)
        add_replica(&e->info, e->x[i], e->devices.index[i * e->info.n_ranks], i);
}

/* Devices divide the host's threads. */
static int threads_of_one(const struct engine *e, const struct engine_options *o)
{
    int all = o->n_threads ? o->n_threads : thread_usable_count();
    return all > e->devices.n ? all / e->devices.n : 1;
}

static int open_executor(struct engine *e, int i, const struct engine_options *o, const struct backend *backend, struct err *err)
{
    struct device_executor_options xo = {.model = {.dir = o->model_dir,
                                                   .dtype = o->dtype,
                                                   .matmul_precision = o->matmul_precision,
                                                   .n_threads = threads_of_one(e, o),
                                                   .cpu_level = o->cpu_level,
                                                   .cuda_level = o->cuda_level,
                                                   .max_model_len = o->max_model_len,
                                                   .overrides = {.rope_scaling = o->rope_scaling,
                                                                 .rope_factor = o->rope_factor,
                                                                 .accept_keys = o->accept_keys,
                                                                 .dense_layers = o->dense_layers,
                                                                 .bos_id = o->bos_id,
                                                                 .eos_id = o->eos_id,
                                                                 .expert_choice = o->expert_choice},
                                                   .random_weights = o->random_weights,
                                                   .seed = o->seed,
                                                   .log = o->log},
                                         .max_rows = o->max_batch_tokens,
                                         .max_steps = o->steps_in_flight,
                                         .draw_rows = o->draw_rows,
                                         .kv_cache_bytes = o->kv_cache_bytes,
                                         .state_slots = o->state_slots};
    assert(o->steps_in_flight >= 0 && o->steps_in_flight <= EXECUTOR_STEPS_MAX);
    int ranks = e->devices.n / e->n;
    return group_executor_open(&xo, backend, &e->devices.index[i * ranks], ranks, i ? e->x[0] : NULL, &e->x[i], err);
}

static int open_worker(struct engine *e, int i, const struct engine_options *o, struct err *err)
{
    const struct model *m = device_executor_model(group_executor_rank(e->x[i], 0));
    struct executor *x = group_executor_face(e->x[i]);
    struct worker_options wo = {.device = i,
                                .number = e->info.device_index[i],
                                .prefix_cache = o->prefix_cache,
                                .tree_bytes = (size_t)x->limits.n_kv_slots * model_kv_row_bytes(m) / 8 + (16u << 20),
                                .eos_ids = m->config.eos_ids,
                                .n_eos = m->config.n_eos,
                                .log = o->log};
    return worker_init(&e->workers[i], x, &e->queue, &wo, err);
}

/* All are made before the first one runs, so that what it shares with others is there. */
static int start_workers(struct engine *e, const struct engine_options *o, struct err *err)
{
    int r = 0;
    e->workers = calloc((size_t)e->n, sizeof(*e->workers));
    if (!e->workers)
        return err_set(err, ERR_NOMEM, "no memory for the engine");
    for (int i = 0; r >= 0 && i < e->n; i++)
        r = open_worker(e, i, o, err);
    if (r >= 0 && e->n > 1) {
        r = dispatch_init(&e->dispatch, e->info.max_batch_tokens, e->queue.reuses, err);
        e->queue.dispatch = &e->dispatch;
    }
    for (int i = 0; r >= 0 && i < e->n; i++)
        r = worker_start(&e->workers[i], err);
    return r;
}

/* All replicas are opened at once; those but the first have its weights, so they wake their devices and wait for it. */
struct opening {
    struct engine *e;
    const struct engine_options *o;
    const struct backend *backend;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool first_done; /* under the lock */
    struct {
        int r;
        struct err err;
    } of[ENGINE_DEVICES_MAX];
};

static void wait_for_first(struct opening *a)
{
    pthread_mutex_lock(&a->lock);
    while (!a->first_done)
        pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

static void tell_others(struct opening *a)
{
    pthread_mutex_lock(&a->lock);
    a->first_done = true;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

static void open_one(void *arg, int i)
{
    struct opening *a = arg;
    int ranks = a->e->devices.n / a->e->n;
    for (int rank = 0; i && a->backend->wake && rank < ranks; rank++)
        a->backend->wake(a->e->devices.index[i * ranks + rank]);
    if (i)
        wait_for_first(a);
    a->of[i].r = i ? a->of[0].r : 0;
    if (a->of[i].r >= 0)
        a->of[i].r = open_executor(a->e, i, a->o, a->backend, &a->of[i].err);
    if (!i)
        tell_others(a);
}

static int open_executors(struct engine *e, const struct engine_options *o, const struct backend *backend, struct err *err)
{
    struct opening a = {.e = e, .o = o, .backend = backend, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    int r = 0;
    thread_each(e->n, open_one, &a);
    for (int i = 0; i < e->n && r >= 0; i++)
        if ((r = a.of[i].r) < 0 && err)
            *err = a.of[i].err;
    pthread_mutex_destroy(&a.lock);
    pthread_cond_destroy(&a.changed);
    return r;
}

int engine_open_on(const struct engine_options *o, const struct backend *backend, struct engine **ret, struct err *err)
{
    struct engine *e = calloc(1, sizeof(*e));
    if (!e)
        return err_set(err, ERR_NOMEM, "no memory for the engine");
    int ranks = o->tensor_parallel ? o->tensor_parallel : 1, r = devices_read(o->device_list, ranks, backend, &e->devices, err);
    if (r < 0) {
        free(e);
        return r;
    }
    e->n = e->devices.n / ranks;
    queue_init(&e->queue, e->n, o->max_queue ? o->max_queue : 65536);
    r = open_executors(e, o, backend, err);
    if (r >= 0) {
        fill_info(e);
        r = start_workers(e, o, err);
    }
    if (r < 0) {
        engine_close(e);
        return r;
    }
    *ret = e;
    return 0;
}

int engine_open(const struct engine_options *o, struct engine **ret, struct err *err)
{
    const struct backend *backend;
    if (o->tensor_parallel > 1)
        backend_expect_group();
    int r = backend_find(o->device ? o->device : "auto", &backend, err);
    return r < 0 ? r : engine_open_on(o, backend, ret, err);
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    for (int i = 0; e->workers && i < e->n; i++)
        worker_close(&e->workers[i]);
    for (int i = e->n - 1; i >= 0; i--)
        group_executor_close(e->x[i]);
    free(e->workers);
    queue_done(&e->queue);
    dispatch_done(&e->dispatch);
    free(e);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

int engine_model_hash(const struct engine *e, bool wait, const char **ret, struct err *err)
{
    return hash_job_result(device_executor_model(group_executor_rank(e->x[0], 0))->hash, wait, ret, err);
}

void engine_stats(struct engine *e, struct engine_stats *ret)
{
    queue_stats(&e->queue, ret);
    if (e->info.host_memory) { /* all have the same */
        ret->memory_total_bytes /= (uint64_t)e->n;
        ret->memory_free_bytes /= (uint64_t)e->n;
    }
}

void engine_device_stats(struct engine *e, int i, struct engine_stats *ret)
{
    queue_device_stats(&e->queue, i, ret);
}

int engine_health(struct engine *e, struct err *err)
{
    return queue_health(&e->queue, err);
}

int engine_device_health(struct engine *e, int i, struct err *err)
{
    return queue_device_health(&e->queue, i, err);
}

void engine_drain(struct engine *e)
{
    queue_drain(&e->queue);
}

void engine_cache_clear(struct engine *e)
{
    queue_clear_cache(&e->queue);
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

/* Selectors that see the whole sequence: its prompt must fit into one step, and tokens that come later need stored thresholds. */
static int check_whole(const struct engine *e, const struct eval_request *q, int i, struct err *err)
{
    const struct engine_info *f = &e->info;
    int rows = q->n_tokens - (q->max_new ? 0 : 1);
    if (rows > f->max_batch_tokens)
        return err_field(err, ERR_TOO_LARGE, "tokens",
                         "sequence %d feeds %d tokens, and expert choice \"exact\" needs them in one step; max_batch_tokens is %d", i, rows,
                         f->max_batch_tokens);
    for (int l = 0; l < f->config->n_layers; l++)
        if (q->max_new > 1 && f->plan[l].decide == DECIDE_TOP && !f->plan[l].has_threshold)
            return err_field(err, ERR_UNSUPPORTED, "max_new",
                             "max_new is %d, and this expert-choice checkpoint stores no thresholds: at most 1 token can be generated",
                             q->max_new);
    return 0;
}

static int check_edits(const struct logit_edits *e, int vocab, struct err *err)
{
    bool ok = e->repetition_penalty > 0 && e->min_p >= 0 && e->min_p <= 1 && e->min_tokens >= 0;
    for (int i = 0; i < e->n_bias; i++)
        ok &= e->bias[i].id >= 0 && e->bias[i].id < vocab && e->bias[i].value - e->bias[i].value == 0;
    for (int i = 0; i < e->n_held; i++)
        ok &= e->held_ids[i] >= 0 && e->held_ids[i] < vocab;
    return ok ? 0 : err_field(err, ERR_INVALID, "edits", "an id, a bias, a penalty or min_p of the edits is out of range");
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
    int r = group_executor_face(e->x[0])->limits.whole_prompts ? check_whole(e, q, i, err) : 0;
    if (r < 0)
        return r;
    int top = f->config->vocab < ENGINE_TOP_K_MAX ? f->config->vocab : ENGINE_TOP_K_MAX;
    if (q->top_k < 0 || q->top_k > top)
        return err_field(err, ERR_INVALID, "top_k", "top_k is %d; it must be in 0..%d", q->top_k, top);
    if (!(q->temperature >= 0) || !(q->top_p > 0 && q->top_p <= 1) || q->sample_top_k < 0)
        return err_field(err, ERR_INVALID, "temperature",
                         "temperature %g must be at least 0, top_p %g in (0, 1], sample_top_k %d at least 0", (double)q->temperature,
                         (double)q->top_p, q->sample_top_k);
    r = q->edits ? check_edits(q->edits, f->config->vocab, err) : 0;
    return r < 0 ? r : check_ids(q, i, f->config->vocab, err);
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
    int r = ticket_new(&e->queue, reqs, n, e->info.config->n_layers, group_executor_face(e->x[0])->limits.whole_prompts, &t);
    if (r < 0)
        return err_set(err, r, "no memory for the results of %d requests", n);
    r = queue_submit(&e->queue, t, err);
    if (r < 0)
        ticket_free(t);
    else
        *ret = t;
    return r;
}

bool engine_full(struct engine *e)
{
    return queue_full(&e->queue);
}

size_t engine_request_bytes(const struct engine *e, const struct eval_request *q)
{
    return sequence_bytes(q, e->info.config->n_layers);
}

bool engine_wait(struct engine_ticket *t, int timeout_ms)
{
    return queue_wait(t->queue, t, timeout_ms);
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
    queue_cancel(t->queue, t);
}

void engine_ticket_free(struct engine_ticket *t)
{
    if (!t)
        return;
    if (!engine_wait(t, 0)) {
        engine_cancel(t);
        engine_wait(t, -1);
    }
    ticket_free(t);
}
