/* Opening a device's model and memory, and running steps on it: launch issues everything, wait reads the step's mark. */
#include "engine/schedule/device_executor.h"
#include "common/monotonic.h"
#include "engine/model/scores.h"
#include "kernels/op_times.h"
#include <stdlib.h>

#define REPLAY_ROWS 128

_Static_assert(EXECUTOR_STEPS_MAX <= SCORES_MARK, "a step's number is its mark");

/* Memory of one step in flight: the device writes to it between launch and wait. Activations are not among it, since the device runs one step after
 * another, and each copies out its results before the next begins. */
struct flight {
    struct batch batch;
    struct scores scores;
    struct step_rows *rows;    /* borrowed; NULL: no step is in flight */
    uint64_t number;           /* of the step, in the order of launches */
    unsigned char *route;      /* [n_layers, n_rows] alloc_host memory */
    unsigned char *bad_states; /* [recurrent routers, n_rows] alloc_host memory; NULL: there are none */
    float *prob, *skip_prob;   /* [n_layers, n_rows] alloc_host memory; skip_prob NULL: no layer is nested */
};

struct device_executor {
    struct executor face; /* first: a struct executor of this kind is a struct device_executor */
    struct model model;
    struct workspace w;
    struct kv_memory kv;
    struct flight flights[EXECUTOR_STEPS_MAX];
    struct drawer *drawer; /* of all flights; NULL: another rank scores */
    float *draw_logits;    /* the drawer's, alloc_host memory */
    uint64_t n_launched;
    struct op_times times;
    struct executor_stats stats;
    struct route_layer *layers;
    bool routed; /* any layer is: decisions are fetched */
};

static struct device_executor *of(struct executor *x)
{
    return (struct device_executor *)x;
}

/* ---- launch and wait ---------------------------------------------------------------------------------------- */
struct issue {
    struct device_executor *x;
    const struct batch *batch;
    int top_k;
    bool head; /* the head too, for all wanted rows */
};

static int issue_layers(void *arg)
{
    const struct issue *i = arg;
    int r = forward_layers(&i->x->model, &i->x->w, i->batch, &i->x->kv);
    return r >= 0 && i->head ? forward_head(&i->x->model, &i->x->w, i->batch, 0, i->batch->n_want, i->top_k) : r;
}

/* Decoding steps (one new row for each of a few sequences) come one after another: they are replayed where the backend can, with the head where its
 * chunk holds all wanted rows (*ret_head). Their counts and the flight say which buffers and offsets the ops are given, and whether rows follow says
 * which ops. */
static int run_layers(struct device_executor *x, int id, const struct step_rows *rows, bool *ret_head)
{
    const struct batch *b = &x->flights[id].batch;
    struct kern_ctx *k = x->model.k;
    struct issue issue = {x, b, rows->top_k, false};
    const int key[] = {id, b->n_rows, b->n_runs, b->n_append, b->n_want, rows->n_saves, rows->top_k, rows->n_follow > 0};
    *ret_head = false;
    if (!k->ops->replay || share_n(&x->model.share) > 1 || b->n_rows > REPLAY_ROWS || b->n_runs != b->n_rows || b->n_append != b->n_rows ||
        rows->n_branches)
        return issue_layers(&issue);
    *ret_head = issue.head = b->n_want > 0 && b->n_want <= x->w.head_rows;
    return k->ops->replay(k, key, sizeof(key), issue_layers, &issue);
}

static int fetch_probs(struct device_executor *x, struct flight *f)
{
    struct kern_ctx *k = x->model.k;
    size_t bytes = (size_t)f->batch.n_layers * (size_t)f->batch.n_rows * sizeof(float);
    int r = k->backend->fetch(k, f->prob, DEV_BYTES(x->w.prob), bytes);
    return r >= 0 && f->skip_prob ? k->backend->fetch(k, f->skip_prob, DEV_BYTES(x->w.skip_prob), bytes) : r;
}

static int issue_step(struct device_executor *x, int id, struct step_rows *rows, struct err *err)
{
    struct flight *f = &x->flights[id];
    struct batch *b = &f->batch;
    struct kern_ctx *k = x->model.k;
    bool head = false;
    int r = batch_upload(b, rows, &x->model, &x->kv);
    if (r >= 0)
        r = run_layers(x, id, rows, &head);
    if (x->model.share.rank) /* the first one tells what came out */
        return r < 0 ? r : k->backend->mark(k, id);
    if (r >= 0)
        r = scores_run(&f->scores, &x->model, &x->w, b, rows, f->number, head, err);
    if (r >= 0 && x->routed)
        r = k->backend->fetch(k, f->route, DEV_BYTES(x->w.route), (size_t)b->n_layers * (size_t)b->n_rows);
    if (r >= 0 && f->bad_states)
        r = k->backend->fetch(k, f->bad_states, DEV_BYTES(x->w.router_bad), (size_t)x->model.weights.n_states * (size_t)b->n_rows);
    if (r >= 0 && rows->want_probs)
        r = fetch_probs(x, f);
    return r < 0 ? r : k->backend->mark(k, id);
}

static void note_memory(struct device_executor *x)
{
    struct backend_memory m;
    if (x->model.k->backend->memory(x->model.k, &m) < 0)
        return;
    x->stats.memory_total_bytes = m.total_bytes;
    x->stats.memory_free_bytes = m.free_bytes;
}

/* One step in a second is looked at closely. */
static int launch(struct executor *face, int id, struct step_rows *rows, struct err *err)
{
    struct device_executor *x = of(face);
    bool sampled;
    int r = op_times_begin(&x->times, monotonic_seconds(), &sampled);
    if (sampled)
        note_memory(x);
    if (x->drawer)
        drawer_share(x->drawer);
    x->flights[id].rows = rows;
    x->flights[id].number = ++x->n_launched;
    if (r >= 0)
        r = issue_step(x, id, rows, err);
    int end = op_times_end(&x->times); /* after a failure too: the ops are the backend's own again */
    return r < 0 ? r : end;
}

static int wait_step(struct executor *face, int id, struct step_results *ret, struct err *err)
{
    struct device_executor *x = of(face);
    struct flight *f = &x->flights[id];
    if (x->drawer)
        drawer_share(x->drawer);
    int r = x->model.k->backend->wait(x->model.k, id, err);
    if (r < 0)
        return r;
    if (x->drawer)
        drawer_begin(x->drawer, f->number);
    const struct scores *s = &f->scores;
    *ret = (struct step_results){.route = f->route,
                                 .prob = f->rows->want_probs ? f->prob : NULL,
                                 .skip_prob = f->rows->want_probs ? f->skip_prob : NULL,
                                 .top_k = s->top_k,
                                 .target = f->rows->want_target,
                                 .target_lp = s->target_lp,
                                 .top_id = s->top_id,
                                 .top_lp = s->top_lp,
                                 .bad = s->bad,
                                 .bad_states = f->bad_states};
    f->rows = NULL;
    return 0;
}

static void drop(struct executor *face, struct err *err)
{
    struct device_executor *x = of(face);
    struct err said = {0};
    if (x->model.k->backend->sync(x->model.k, &said) < 0 && err && err->code >= 0)
        *err = said;
    for (int i = 0; i < x->face.limits.max_steps; i++)
        x->flights[i].rows = NULL;
    if (x->drawer)
        drawer_drop(x->drawer);
}

static struct draw *drawn(struct executor *face)
{
    return drawer_over(of(face)->drawer);
}

static bool help_draw(struct executor *face)
{
    return drawer_help(of(face)->drawer);
}

static void notify(struct executor *face, void (*wake)(void *arg), void *arg)
{
    drawer_notify(of(face)->drawer, wake, arg);
}

static void rest(struct executor *face)
{
    struct device_executor *x = of(face);
    const struct backend *be = x->model.k->backend;
    float *unused;
    size_t bytes;
    if (!x->drawer || !be->give_host)
        return;
    drawer_unused(x->drawer, &unused, &bytes);
    if (bytes)
        be->give_host(x->model.k, unused, bytes);
}

static int write_table(struct executor *face, int64_t off, const int *entries, int64_t n)
{
    struct device_executor *x = of(face);
    return x->model.k->backend->upload(x->model.k, DEV_BYTES(dev_i32_at(x->kv.tables, (size_t)off)), entries, (size_t)n * sizeof(int));
}

static void report(struct executor *face, double busy_s, struct executor_stats *ret)
{
    struct device_executor *x = of(face);
    op_times_busy(&x->times, busy_s);
    x->stats.matmul_s = x->times.seconds[OP_MATMUL];
    x->stats.attention_s = x->times.seconds[OP_ATTENTION];
    x->stats.other_s = x->times.seconds[OP_OTHER];
    *ret = x->stats;
}

/* ---- open and close ----------------------------------------------------------------------------------------- */
static void flight_done(struct flight *f, struct kern_ctx *k)
{
    batch_done(&f->batch);
    scores_done(&f->scores);
    k->backend->free_host(k, f->route);
    k->backend->free_host(k, f->bad_states);
    k->backend->free_host(k, f->prob);
    k->backend->free_host(k, f->skip_prob);
}

/* What routers compared: few steps are asked for it, but a step must not fail for want of memory. */
static int alloc_probs(struct flight *f, const struct model *m, const struct workspace *w)
{
    size_t bytes = (size_t)m->config.n_layers * (size_t)w->max_rows * sizeof(float);
    f->prob = m->k->backend->alloc_host(m->k, bytes);
    f->skip_prob = w->skip_prob ? m->k->backend->alloc_host(m->k, bytes) : NULL;
    return f->prob && (f->skip_prob || !w->skip_prob) ? 0 : ERR_NOMEM;
}

static int flight_init(struct flight *f, const struct model *m, struct drawer *drawer, const struct workspace *w, struct err *err)
{
    int max_rows = w->max_rows;
    int n_layers = m->config.n_layers, r = batch_init(&f->batch, m->k, max_rows, n_layers, err);
    if (r >= 0)
        r = scores_init(&f->scores, m, drawer, max_rows, err);
    f->route = m->k->backend->alloc_host(m->k, (size_t)max_rows * (size_t)n_layers);
    size_t states = (size_t)m->weights.n_states * (size_t)max_rows;
    f->bad_states = states ? m->k->backend->alloc_host(m->k, states) : NULL;
    bool failed = !f->route || (states && !f->bad_states) || alloc_probs(f, m, w) < 0;
    return r >= 0 && failed ? err_set(err, ERR_NOMEM, "no memory for steps of %d rows", max_rows) : r;
}

static void close_device(struct executor *face)
{
    struct device_executor *x = of(face);
    if (x->model.k) {
        for (int i = 0; i < EXECUTOR_STEPS_MAX; i++)
            flight_done(&x->flights[i], x->model.k);
        drawer_free(x->drawer);
        x->model.k->backend->free_host(x->model.k, x->draw_logits);
        kv_memory_close(&x->kv);
        workspace_done(&x->w);
    }
    free(x->layers);
    model_close(&x->model);
    free(x);
}

/* Without a stated size the pool takes an eighth of free memory, but no more than 64 sequences of full length beside what is kept for small requests
 * (policy_reserve); it never takes more than is free. Returns rows. */
static int pool_rows(const struct model *m, const struct executor_limits *l, size_t wanted_bytes, struct err *err)
{
    size_t row = model_kv_row_bytes(m) + sizeof(int), one = (size_t)m->config.n_layers * (size_t)m->max_model_len, n = wanted_bytes / row,
           most = 64 * one + (size_t)executor_slots_under_way(l);
    struct backend_memory mem;
    int r = m->k->backend->memory(m->k, &mem);
    if (r < 0)
        return err_set(err, r, "the device does not tell how much memory is free");
    if (!wanted_bytes) {
        n = mem.free_bytes / 8 / row;
        n = n > most ? most : n;
        n = n < one ? one : n;
    }
    if (n > mem.free_bytes / row)
        return err_field(err, ERR_NOMEM, "kv_cache_bytes",
                         "the KV cache needs %zu MiB (kv_cache_bytes), and %zu of the %s device's %zu MiB are free", n * row >> 20,
                         mem.free_bytes >> 20, m->k->backend->name, mem.total_bytes >> 20);
    n = n > INT32_MAX / 2 ? INT32_MAX / 2 : n;
    if (n < one)
        return err_field(err, ERR_INVALID, "kv_cache_bytes",
                         "kv_cache_bytes holds %zu rows of %zu bytes, but one sequence of max_model_len %d may need %zu (%.0f MiB)", n,
                         model_kv_row_bytes(m), m->max_model_len, one, (double)(one * model_kv_row_bytes(m)) / 1048576.0);
    return (int)n;
}

/* Places for router states: every running sequence needs one, and the prefix tree keeps others. A quarter of what the KV rows take, from 64 to 65,536. */
static int state_slots(const struct model *m, const struct executor_limits *l, int wanted)
{
    size_t bytes = model_state_bytes(m);
    if (!bytes || wanted)
        return bytes ? wanted : 0;
    size_t n = (size_t)l->n_kv_slots * model_kv_row_bytes(m) / 4 / bytes;
    return n < 64 ? 64 : n > 65536 ? 65536 : (int)n;
}

static int describe_layers(struct device_executor *x, struct err *err)
{
    int n = x->model.config.n_layers;
    x->layers = calloc((size_t)n, sizeof(*x->layers));
    if (!x->layers)
        return err_set(err, ERR_NOMEM, "no memory for a plan of %d layers", n);
    for (int l = 0; l < n; l++)
        x->routed |= layer_is_routed(&x->model.plan[l]);
    for (int l = 0; l < n; l++)
        x->layers[l] = (struct route_layer){.routed = layer_is_routed(&x->model.plan[l]),
                                            .keep_all = x->model.plan[l].kv == KV_ALL,
                                            .nested = layer_is_nested(&x->model.plan[l]),
                                            .n_states = layer_n_states(&x->model.plan[l])};
    return 0;
}

static void set_limits(struct device_executor *x, const struct device_executor_options *o)
{
    const struct model *m = &x->model;
    const struct backend_limits *device = &m->k->limits;
    x->face.limits = (struct executor_limits){.max_rows = o->max_rows ? o->max_rows : device->step_rows,
                                              .max_steps = o->max_steps ? o->max_steps : device->steps_in_flight,
                                              .n_layers = m->config.n_layers,
                                              .layers = x->layers,
                                              .max_positions = m->max_model_len};
    for (int l = 0; l < m->config.n_layers; l++)
        x->face.limits.whole_prompts |= m->plan[l].scope == SCOPE_SEQUENCE;
    x->face.limits.branches = !m->weights.n_states && !x->face.limits.whole_prompts;
    x->face.limits.follows = x->face.limits.max_steps > 1 && share_n(&m->share) == 1 && !x->face.limits.whole_prompts;
    if (x->face.limits.whole_prompts)
        log_warn(o->model.log,
                 "expert choice \"exact\" selects among all tokens of a prompt: scores are not causal, prompts of up to %d tokens run "
                 "whole, and "
                 "nothing of them is reused",
                 x->face.limits.max_rows);
}

static int open_drawer(struct device_executor *x, int rows, struct err *err)
{
    const struct model *m = &x->model;
    int v = m->config.vocab;
    rows = rows ? rows : drawer_capacity(v);
    size_t bytes = (size_t)rows * (size_t)v * sizeof(float);
    if (m->share.rank)
        return 0;
    x->draw_logits = m->k->backend->alloc_host(m->k, bytes);
    if (!x->draw_logits)
        return err_set(err, ERR_NOMEM, "no memory for the logits of tokens to be drawn (%zu MiB)", bytes >> 20);
    return drawer_new(v, rows, m->n_threads, x->draw_logits, &x->drawer, err);
}

int device_executor_open_memory(struct device_executor *x, const struct device_executor_options *o, int kv_slots, struct err *err)
{
    const struct model *m = &x->model;
    struct executor_limits *l = &x->face.limits;
    set_limits(x, o);
    int r = kv_slots ? kv_slots : pool_rows(m, l, o->kv_cache_bytes, err);
    if (r < 0)
        return r;
    l->n_kv_slots = r;
    /* at least one sequence of full length, as pool_rows sees to; and as much again for generations, whose tables are as long as they may get while
     * slots are set aside as they go on */
    l->n_table_entries = 2 * (int64_t)r;
    l->n_state_slots = state_slots(m, l, o->state_slots);
    const struct kv_memory_sizes sizes = {.n_slots = l->n_kv_slots,
                                          .row_bytes = model_kv_row_bytes(m),
                                          .n_table_entries = l->n_table_entries,
                                          .n_state_slots = l->n_state_slots,
                                          .state_slot_bytes = model_state_bytes(m)};
    r = kv_memory_open(&x->kv, m->k, &sizes, err);
    if (r >= 0)
        r = workspace_init(&x->w, m, l->max_rows, err);
    if (r >= 0)
        r = open_drawer(x, o->draw_rows, err);
    for (int i = 0; r >= 0 && i < l->max_steps; i++)
        r = flight_init(&x->flights[i], m, x->drawer, &x->w, err);
    op_times_init(&x->times, x->model.k);
    note_memory(x);
    return r;
}

int device_executor_open(const struct device_executor_options *o, const struct backend *backend, struct device_executor **ret,
                         struct err *err)
{
    static const struct executor_ops ops = {.launch = launch,
                                            .wait = wait_step,
                                            .drawn = drawn,
                                            .help_draw = help_draw,
                                            .notify = notify,
                                            .drop = drop,
                                            .rest = rest,
                                            .write_table = write_table,
                                            .report = report,
                                            .close = close_device};
    struct device_executor *x = calloc(1, sizeof(*x));
    if (!x)
        return err_set(err, ERR_NOMEM, "no memory for the engine");
    x->face.ops = &ops;
    int r = o->first ? model_open_replica(&o->model, &o->first->model, &x->model, err) : model_open(&o->model, backend, &x->model, err);
    if (r >= 0)
        r = describe_layers(x, err);
    if (r < 0)
        close_device(&x->face);
    else
        *ret = x;
    return r < 0 ? r : 0;
}

struct executor *device_executor_face(struct device_executor *x)
{
    return &x->face;
}

const struct model *device_executor_model(const struct device_executor *x)
{
    return &x->model;
}

size_t device_executor_workspace_bytes(const struct device_executor *x)
{
    return x->w.bytes;
}
