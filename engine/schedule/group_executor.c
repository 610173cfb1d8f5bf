/* Steps of a group: issued and waited for by all ranks at once, each in its thread, since a rank waits in collectives for the others. One that fails
 * says so at once, or they would wait for ever. */
#include "engine/schedule/group_executor.h"
#include "common/thread.h"
#include <pthread.h>
#include <stdlib.h>

/* What all ranks do at once. */
struct task {
    int id;                 /* of the step */
    struct step_rows *rows; /* to launch it; NULL: to wait for it */
};

/* A rank but the first. */
struct helper {
    struct group_executor *g;
    int rank;
    pthread_t thread;
    bool started;
    int r; /* of its latest task */
    struct err err;
};

struct group_executor {
    struct executor face;
    const struct backend *backend;
    int n;
    struct device_executor *ranks[GROUP_RANKS_MAX];
    struct helper helpers[GROUP_RANKS_MAX]; /* [0] is not used */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    bool grouped;
    /* under the lock */
    unsigned long asked; /* tasks that helpers were told of */
    int n_busy;          /* helpers that are at the latest */
    bool stop;
    struct task task;
};

static struct group_executor *of(struct executor *x)
{
    return (struct group_executor *)x;
}

static struct executor *rank_of(const struct group_executor *g, int i)
{
    return device_executor_face(g->ranks[i]);
}

static struct kern_ctx *context_of(const struct group_executor *g, int i)
{
    return device_executor_model(g->ranks[i])->k;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */
static int do_task(struct group_executor *g, int rank, struct task task, struct step_results *ret, struct err *err)
{
    struct executor *x = rank_of(g, rank);
    int r = task.rows ? x->ops->launch(x, task.id, task.rows, err) : x->ops->wait(x, task.id, ret, err);
    if (r < 0)
        g->backend->group_fail(context_of(g, rank));
    return r;
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct group_executor *g = h->g;
    unsigned long seen = 0;
    pthread_mutex_lock(&g->lock);
    for (;;) {
        while (g->asked == seen && !g->stop)
            pthread_cond_wait(&g->wake, &g->lock);
        if (g->stop)
            break;
        seen = g->asked;
        struct task task = g->task;
        struct step_results unread;
        pthread_mutex_unlock(&g->lock);
        h->err = (struct err){0};
        h->r = do_task(g, h->rank, task, &unread, &h->err);
        pthread_mutex_lock(&g->lock);
        if (!--g->n_busy)
            pthread_cond_signal(&g->done);
    }
    pthread_mutex_unlock(&g->lock);
    return NULL;
}

static void ask_helpers(struct group_executor *g, struct task task)
{
    pthread_mutex_lock(&g->lock);
    g->task = task;
    g->n_busy = g->n - 1;
    g->asked++;
    pthread_cond_broadcast(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

static void await_helpers(struct group_executor *g)
{
    pthread_mutex_lock(&g->lock);
    while (g->n_busy)
        pthread_cond_wait(&g->done, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

/* Keeps the error of a rank that says what happened. */
static void keep(struct err *err, const struct err *of_rank)
{
    if (err && err->code >= 0 && of_rank->code < 0)
        *err = *of_rank;
}

static int do_together(struct group_executor *g, struct task task, struct step_results *ret, struct err *err)
{
    ask_helpers(g, task);
    int r = do_task(g, 0, task, ret, err);
    await_helpers(g);
    for (int i = 1; i < g->n; i++) {
        r = r < 0 ? r : g->helpers[i].r;
        keep(err, &g->helpers[i].err);
    }
    return r;
}

static int launch_group(struct executor *face, int id, struct step_rows *rows, struct err *err)
{
    return do_together(of(face), (struct task){id, rows}, NULL, err);
}

static int wait_group(struct executor *face, int id, struct step_results *ret, struct err *err)
{
    return do_together(of(face), (struct task){id, NULL}, ret, err);
}

static struct draw *drawn_group(struct executor *face)
{
    struct executor *first = rank_of(of(face), 0);
    return first->ops->drawn(first);
}

static bool help_draw_group(struct executor *face)
{
    struct executor *first = rank_of(of(face), 0);
    return first->ops->help_draw(first);
}

static void notify_group(struct executor *face, void (*wake)(void *arg), void *arg)
{
    struct executor *first = rank_of(of(face), 0);
    first->ops->notify(first, wake, arg);
}

static void drop_group(struct executor *face, struct err *err)
{
    struct group_executor *g = of(face);
    for (int i = 0; i < g->n; i++)
        rank_of(g, i)->ops->drop(rank_of(g, i), err);
}

static void rest_group(struct executor *face)
{
    struct group_executor *g = of(face);
    for (int i = 0; i < g->n; i++)
        rank_of(g, i)->ops->rest(rank_of(g, i));
}

static int write_table_group(struct executor *face, int64_t off, const int *entries, int64_t n)
{
    struct group_executor *g = of(face);
    int r = 0;
    for (int i = 0; i < g->n && r >= 0; i++)
        r = rank_of(g, i)->ops->write_table(rank_of(g, i), off, entries, n);
    return r;
}

static void report_group(struct executor *face, double busy_s, struct executor_stats *ret)
{
    struct executor *first = rank_of(of(face), 0);
    first->ops->report(first, busy_s, ret);
}

static void close_group(struct executor *face)
{
    group_executor_close(of(face));
}

/* ---- open and close --------------------------------------------------------------------------------------------- */
struct opening {
    struct group_executor *g;
    const struct device_executor_options *o;
    const int *index;
    const struct group_executor *first;
    struct {
        int r;
        struct err err;
    } of_rank[GROUP_RANKS_MAX];
};

static void open_rank(void *arg, int i)
{
    struct opening *a = arg;
    struct device_executor_options mine = *a->o;
    mine.model.device_index = a->index[i];
    mine.model.share = (struct share){i, a->g->n};
    mine.first = a->first ? a->first->ranks[i] : NULL;
    a->of_rank[i].r = device_executor_open(&mine, a->g->backend, &a->g->ranks[i], &a->of_rank[i].err);
}

/* Each rank reads its part beside the others; memory for KV is divided once all weights are there. */
static int open_ranks(struct group_executor *g, const struct device_executor_options *o, const int *index,
                      const struct group_executor *first, struct err *err)
{
    struct opening a = {.g = g, .o = o, .index = index, .first = first};
    int r = 0;
    thread_each(g->n, open_rank, &a);
    for (int i = 0; i < g->n && r >= 0; i++)
        if ((r = a.of_rank[i].r) < 0 && err)
            *err = a.of_rank[i].err;
    for (int i = 0; i < g->n && r >= 0; i++)
        r = device_executor_open_memory(g->ranks[i], o, i ? rank_of(g, 0)->limits.n_kv_slots : 0, err);
    return r;
}

static int start_helpers(struct group_executor *g, struct err *err)
{
    for (int i = 1; i < g->n; i++) {
        struct helper *h = &g->helpers[i];
        *h = (struct helper){.g = g, .rank = i};
        h->started = !pthread_create(&h->thread, NULL, helper_main, h);
        if (!h->started)
            return err_set(err, ERR_NOMEM, "cannot start the threads of %d ranks", g->n);
    }
    return 0;
}

static int open_group(struct group_executor *g, struct err *err)
{
    static const struct executor_ops ops = {.launch = launch_group,
                                            .wait = wait_group,
                                            .drawn = drawn_group,
                                            .help_draw = help_draw_group,
                                            .notify = notify_group,
                                            .drop = drop_group,
                                            .rest = rest_group,
                                            .write_table = write_table_group,
                                            .report = report_group,
                                            .close = close_group};
    struct kern_ctx *contexts[GROUP_RANKS_MAX];
    struct err why = {0};
    if (!g->backend->group_open)
        return err_field(err, ERR_UNSUPPORTED, "tensor_parallel", "tensor_parallel is %d, and this build's %s devices cannot work together",
                         g->n, g->backend->name);
    for (int i = 0; i < g->n; i++)
        contexts[i] = context_of(g, i);
    g->face = (struct executor){.ops = &ops, .limits = rank_of(g, 0)->limits};
    int r = g->backend->group_open(contexts, g->n, &why);
    if (r < 0)
        return err_field(err, r, "tensor_parallel", "tensor_parallel is %d: %s", g->n, why.text);
    g->grouped = true;
    return start_helpers(g, err);
}

int group_executor_open(const struct device_executor_options *o, const struct backend *backend, const int *index, int n,
                        const struct group_executor *first, struct group_executor **ret, struct err *err)
{
    struct group_executor *g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(err, ERR_NOMEM, "no memory for the engine");
    g->backend = backend;
    g->n = n;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, NULL);
    pthread_cond_init(&g->done, NULL);
    int r = open_ranks(g, o, index, first, err);
    if (r >= 0 && n > 1)
        r = open_group(g, err);
    if (r < 0)
        group_executor_close(g);
    else
        *ret = g;
    return r;
}

static void stop_helpers(struct group_executor *g)
{
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_broadcast(&g->wake);
    pthread_mutex_unlock(&g->lock);
    for (int i = 1; i < g->n; i++)
        if (g->helpers[i].started)
            pthread_join(g->helpers[i].thread, NULL);
}

void group_executor_close(struct group_executor *g)
{
    if (!g)
        return;
    struct kern_ctx *contexts[GROUP_RANKS_MAX];
    stop_helpers(g);
    for (int i = 0; i < g->n && g->grouped; i++)
        contexts[i] = context_of(g, i);
    if (g->grouped)
        g->backend->group_close(contexts, g->n);
    for (int i = g->n - 1; i >= 0; i--)
        if (g->ranks[i])
            rank_of(g, i)->ops->close(rank_of(g, i));
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    pthread_cond_destroy(&g->done);
    free(g);
}

struct executor *group_executor_face(struct group_executor *g)
{
    return g->n > 1 ? &g->face : rank_of(g, 0);
}

int group_executor_size(const struct group_executor *g)
{
    return g->n;
}

const struct device_executor *group_executor_rank(const struct group_executor *g, int i)
{
    return g->ranks[i];
}
