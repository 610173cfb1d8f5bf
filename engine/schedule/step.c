/* From grants to issued ops, and from a finished step to its sequences. */
#include "engine/schedule/step.h"
#include <time.h>

#define REPLAY_ROWS 128

static const struct sampler_params *sampler_of(void *user, int i, uint64_t *ret_index)
{
    const struct flight *f = user;
    const struct sequence *q = f->wants[i].seq;
    if (f->wants[i].pos + 1 < q->req->n_tokens || q->req->temperature <= 0)
        return NULL;
    *ret_index = (uint64_t)q->n_new;
    return &q->sampler;
}

static int top_k_of_step(const struct flight *f)
{
    int k = 1;
    for (int i = 0; i < f->batch.n_want; i++)
        if (f->wants[i].seq->k1 > k)
            k = f->wants[i].seq->k1;
    return k;
}

struct issue {
    struct scheduler *s;
    const struct batch *batch;
};

static int issue_layers(void *arg)
{
    const struct issue *i = arg;
    return forward_layers(i->s->m, &i->s->w, i->batch, &i->s->kv);
}

/* Decoding steps (one new row for each of a few sequences) come one after another: they are replayed where the backend can. Their counts and
 * the flight say which buffers and offsets the ops are given. */
static int run_layers(struct scheduler *s, const struct flight *f)
{
    const struct batch *b = &f->batch;
    struct issue issue = {s, b};
    const int key[] = {f->id, b->n_rows, b->n_runs, b->n_append, b->n_want};
    if (!s->m->k->ops->replay || b->n_rows > REPLAY_ROWS || b->n_runs != b->n_rows || b->n_append != b->n_rows)
        return issue_layers(&issue);
    return s->m->k->ops->replay(s->m->k, key, sizeof(key), issue_layers, &issue);
}

/* Everything that the device does for the packed rows. */
static int issue_step(struct scheduler *s, struct flight *f, struct err *err)
{
    struct batch *b = &f->batch;
    struct kern_ctx *k = s->m->k;
    int r = batch_upload(b, s->kv.tables);
    if (r >= 0)
        r = run_layers(s, f);
    if (r >= 0)
        r = k->backend->fetch(k, f->route, DEV_BYTES(s->w.route), (size_t)b->n_layers * (size_t)b->n_rows);
    if (r >= 0)
        r = scores_run(&f->scores, s->m, &s->w, b, top_k_of_step(f), sampler_of, f, err);
    return r < 0 ? r : k->backend->mark(k, f->id);
}

int step_launch(struct scheduler *s, struct flight *f, const struct grant *grants, int n, struct err *err)
{
    struct batch *b = &f->batch;
    batch_clear(b);
    for (int i = 0; i < n; i++)
        if (grants[i].n)
            sequence_pack(grants[i].seq, &s->env, b, grants[i].n, f->runs, f->wants);
    f->overlapped = s->n_launched > s->counts.steps;
    f->number = ++s->n_launched;
    tree_make_room(&s->tree, flight_slots(f));
    kv_cache_take(&s->kv, flight_slots(f), b->reserved);
    return issue_step(s, f, err);
}

double step_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The step is over: its sequences may be packed again, or finished. */
static void land(struct flight *f)
{
    for (int i = 0; i < f->batch.n_runs; i++)
        f->runs[i].seq->in_flight = false;
    f->number = 0;
}

int step_collect(struct scheduler *s, struct flight *f, struct err *err)
{
    double start = step_clock();
    int r = s->m->k->backend->wait(s->m->k, f->id, err);
    s->counts.wait_s += step_clock() - start;
    if (r < 0)
        return r;
    s->counts.steps++;
    s->counts.steps_overlapped += f->overlapped;
    land(f);
    commit_step(s, f);
    return 0;
}

void step_drop(struct scheduler *s, struct flight *f)
{
    kv_cache_give(&s->kv, f->batch.reserved, flight_slots(f));
    land(f);
}
