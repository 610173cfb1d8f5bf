/* See worker_rig.h. */
#include "tests/unit/worker_rig.h"
#include "tests/check.h"
#include <stdlib.h>
#include <time.h>

enum { MOST_TURNS = 20000 /* to answer all jobs */, TURNS_OF_CANCELLED = 6 };

/* ---- tickets --------------------------------------------------------------------------------------------------------- */
static int submit(struct worker_rig *r, struct job *job, int n)
{
    struct err err;
    if (!CHECK_INT(ticket_new(&r->queue, job->reqs, n, FAKE_LAYERS, r->x[0]->kind.whole, &job->ticket), 0))
        exit(1);
    for (int i = 0; i < n; i++)
        job->watches[i].seq = &job->ticket->seqs[i];
    int code = queue_submit(&r->queue, job->ticket, &err);
    if (code < 0) {
        ticket_free(job->ticket);
        job->ticket = NULL;
    }
    return code;
}

int worker_rig_submit(struct worker_rig *r, int j)
{
    return worker_rig_submit_group(r, j, 1 + traffic_random(WORKER_RIG_GROUP));
}

int worker_rig_submit_group(struct worker_rig *r, int j, int n)
{
    struct job *job = &r->jobs[j];
    *job = (struct job){0};
    for (int i = 0; i < n; i++)
        job->reqs[i] = traffic_request(&job->watches[i]);
    job->reqs[0].client = r->client ? r->client : (uint64_t)traffic_random(4);
    job->reqs[0].call = (uint64_t)traffic_random(3);
    return submit(r, job, n);
}

int worker_rig_submit_one(struct worker_rig *r, int j, const struct eval_request *q)
{
    struct job *job = &r->jobs[j];
    *job = (struct job){.reqs = {*q}, .watches = {{.stop = -1}}};
    job->reqs[0].client = r->client;
    job->reqs[0].on_done = expect_on_done;
    job->reqs[0].on_token = q->max_new ? expect_on_token : NULL;
    job->reqs[0].user = &job->watches[0];
    return submit(r, job, 1);
}

void worker_rig_cancel(struct worker_rig *r, int j)
{
    r->jobs[j].cancelled = true;
    r->jobs[j].cancelled_at = r->n_turns;
    queue_cancel(&r->queue, r->jobs[j].ticket);
}

void worker_rig_clear(struct worker_rig *r)
{
    pthread_mutex_lock(&r->queue.lock);
    r->queue.clears_asked++; /* as queue_clear_cache does, which would wait */
    pthread_mutex_unlock(&r->queue.lock);
}

/* ---- results --------------------------------------------------------------------------------------------------------- */
static void count_result(struct worker_rig *r, const struct eval_result *res)
{
    r->n_rows += (uint64_t)res->rows_computed;
    r->n_unexpected += r->may_fail && res->code == r->may_fail;
    *(res->code == ERR_CANCELLED ? &r->n_cancelled : res->code ? &r->n_failed : &r->n_done) += 1;
    if (res->code)
        return;
    r->n_scored += (uint64_t)res->n_scored;
    r->n_generated += (uint64_t)res->n_new;
    r->n_cached += (uint64_t)res->rows_cached;
}

static void check_request(struct worker_rig *r, const struct job *job, int i)
{
    const struct eval_request *q = &job->reqs[i];
    const struct eval_result *res = &job->ticket->seqs[i].result;
    bool excused = (res->code == ERR_CANCELLED && job->cancelled) || (res->code && res->code == r->may_fail);
    bool ok = excused || (res->code == expect_code(q, r->x[0]->kind) && (res->code || expect_result(q, res, TRAFFIC_EOS, r->x[0]->kind)));
    if (!CHECK(ok))
        fprintf(stderr, "  %d tokens, score_begin %d, top_k %d, max_new %d: code %d %s\n", q->n_tokens, q->score_begin, q->top_k,
                q->max_new, res->code, res->code ? res->err.text : "");
    CHECK(!res->code || res->err.text[0]);
    CHECK_INT(job->watches[i].n_done, 1);
    count_result(r, res);
}

void worker_rig_check(struct worker_rig *r, int j)
{
    struct job *job = &r->jobs[j];
    if (!job->ticket || !queue_wait(&r->queue, job->ticket, 0))
        return;
    for (int i = 0; i < job->ticket->n; i++)
        check_request(r, job, i);
    ticket_free(job->ticket);
    job->ticket = NULL;
}

/* ---- turns ----------------------------------------------------------------------------------------------------------- */
/* KV slots that steps in flight have taken for a sequence. */
static int64_t slots_of(const struct worker *w, const struct sequence *q)
{
    int64_t n = 0;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        const struct step *s = &w->steps[i];
        for (int j = 0; s->number && j < s->rows.n_runs; j++)
            n += s->runs[j].seq == q && s->rows.runs[j].append ? s->rows.runs[j].n * w->policy.layers : 0;
    }
    return n;
}

/* Of a node in the tree, tokens are to be computed only by somebody; but the last one may just have a score. */
static void check_nodes(const struct tree *t)
{
    for (const struct tree_node *n = t->newest; n; n = n->lru_older) {
        bool scored = n->score_k && n->has_top[n->n - 1];
        CHECK(n->owner || n->n_kv >= n->n - scored);
    }
}

/* Every slot is free, in the tree, or taken by a step in flight or, of router states, by a running sequence. What is promised is there. */
static void check_slots(const struct worker *w)
{
    int in_flight = 0, states = 0;
    int64_t owned = 0;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        in_flight += w->steps[i].number ? step_rows_slots(&w->steps[i].rows) : 0;
        states += w->steps[i].number ? w->steps[i].rows.n_saves : 0;
    }
    for (const struct sequence *q = policy_next(&w->policy, NULL); q; q = policy_next(&w->policy, (struct sequence *)(uintptr_t)q)) {
        int64_t taken = slots_of(w, q);
        CHECK(q->promised >= taken);
        owned += taken;
        states += q->state_slot >= 0;
    }
    CHECK(policy_promised(&w->policy) - owned <= tree_available(&w->tree));
    CHECK_INT(w->kv.n_free + w->tree.held_slots + in_flight, w->kv.n);
    CHECK_INT(w->states.n_free + w->tree.n_states + states, w->states.n);
    CHECK(w->tree.pinned_slots <= w->tree.held_slots);
    check_nodes(&w->tree);
    CHECK(w->policy.n_running || w->tree.bytes <= w->tree.max_bytes);
}

/* A sequence that has `tokens` more than when it made way last, or by chance. */
static struct sequence *find_victim(struct worker *worker, int tokens)
{
    struct policy *p = &worker->policy;
    for (struct sequence *s = policy_next(p, NULL); s; s = policy_next(p, s)) {
        struct expect_watch *w = s->req->user;
        bool may = s->where == SEQUENCE_RUNNING && !sequence_away(s) && !s->done && s < s->ticket->seqs + s->ticket->n;
        if (!may || (s->n_new < w->n_preempted && traffic_random(40)))
            continue;
        w->n_preempted = s->n_new + tokens;
        return s;
    }
    return NULL;
}

static void preempt(struct worker *w, int tokens)
{
    struct sequence *s;
    while ((s = find_victim(w, tokens)))
        policy_preempt(&w->policy, &w->env, s);
}

static bool turn(struct worker_rig *r, struct worker *w)
{
    struct queue_device *q = &r->queue.dev[w->device];
    const struct queue_delivery *d = &w->delivery;
    for (int n = r->holds ? 0 : w->waits ? FAKE_DRAWS_MAX : traffic_random(4); n > 0 && fake_executor_draw(r->x[w->device]); n--)
        ;
    if ((policy_idle(&w->policy) || w->waits) && !queue_calls(&r->queue, w->device)) {
        if (!d->done.n && !d->cleared)
            return false;
        q->sweep = true; /* it would deliver and then sleep */
    }
    r->x[w->device]->holds_draws = r->holds || traffic_random(2);
    CHECK(worker_turn(w));
    if (r->preempts)
        preempt(w, r->follows ? 1 + traffic_random(4) : 1);
    check_slots(w);
    return true;
}

static bool draws(const struct job *job)
{
    bool any = false;
    for (int i = 0; job->ticket && i < job->ticket->n_seqs; i++)
        any |= job->ticket->seqs[i].drawing;
    return any;
}

bool worker_rig_turn(struct worker_rig *r)
{
    struct queue *q = &r->queue;
    int first = r->n_devices > 1 ? traffic_random(r->n_devices) : 0, i = 0;
    while (i < r->n_devices && !turn(r, &r->workers[(first + i) % r->n_devices]))
        i++;
    if (i == r->n_devices)
        return false;
    r->n_turns++;
    for (int j = 0; j < WORKER_RIG_JOBS; j++) { /* what is cancelled does not run on, but for steps in flight and draws */
        struct job *job = &r->jobs[j];
        if (draws(job))
            job->cancelled_at = r->n_turns;
        CHECK(!job->ticket || !job->cancelled || r->n_turns - job->cancelled_at < TURNS_OF_CANCELLED * r->n_devices * r->n_devices ||
              queue_wait(q, job->ticket, 0));
    }
    return true;
}

static bool all_answered(struct worker_rig *r)
{
    bool all = true;
    for (int j = 0; j < WORKER_RIG_JOBS; j++) {
        worker_rig_check(r, j);
        all &= !r->jobs[j].ticket;
    }
    return all;
}

void worker_rig_act(struct worker_rig *r)
{
    int j = traffic_random(WORKER_RIG_JOBS);
    worker_rig_check(r, j);
    if (!r->jobs[j].ticket)
        CHECK_INT(worker_rig_submit(r, j), 0);
    else if (!traffic_random(12))
        worker_rig_cancel(r, j);
    if (!traffic_random(r->branches ? 5 : 60)) /* who finds its prefix joins nobody */
        worker_rig_clear(r);
    for (int n = traffic_random(4 * r->n_devices); n > 0; n--)
        worker_rig_turn(r);
}

void worker_rig_settle(struct worker_rig *r)
{
    for (int turns = 0; !all_answered(r); turns++)
        if (!CHECK(worker_rig_turn(r)) || !CHECK(turns < MOST_TURNS))
            exit(1); /* a sequence was lost, or runs for ever */
}

/* ---- open and close -------------------------------------------------------------------------------------------------- */
static bool open_device(struct worker_rig *r, int i, const struct worker_setting *s)
{
    static const int32_t eos = TRAFFIC_EOS;
    struct worker_options o = {.device = i, .prefix_cache = s->prefix_cache, .tree_bytes = s->tree_bytes, .eos_ids = &eos, .n_eos = 1};
    struct err err;
    struct executor_limits limits = {.max_rows = s->max_rows,
                                     .max_steps = s->max_steps,
                                     .n_kv_slots = s->n_kv_slots,
                                     .n_table_entries = s->n_kv_slots,
                                     .n_state_slots = s->n_state_slots,
                                     .follows = s->follows,
                                     .branches = s->branches,
                                     .whole_prompts = s->whole_prompts,
                                     .max_positions = TRAFFIC_LEN + TRAFFIC_NEW};
    r->x[i] = fake_executor_open(&limits);
    if (!CHECK(r->x[i]) || !CHECK_INT(worker_init(&r->workers[i], &r->x[i]->face, &r->queue, &o, &err), 0))
        return false;
    if (s->follows) /* generations are short as well */
        r->workers[i].policy.ahead = 2;
    if (s->n_state_slots) { /* sequences here are short: copies must lie closer than they do in earnest */
        CHECK_INT(r->workers[i].env.state_every, WORKER_STATE_EVERY);
        r->workers[i].env.state_every = 7;
    }
    return true;
}

bool worker_rig_open(struct worker_rig *r, const struct worker_setting *s)
{
    struct err err;
    *r = (struct worker_rig){
        .n_devices = s->n_devices ? s->n_devices : 1, .preempts = s->preempts, .follows = s->follows, .branches = s->branches};
    if (s->follows)
        traffic_generates();
    queue_init(&r->queue, r->n_devices, WORKER_RIG_JOBS * WORKER_RIG_GROUP);
    for (int i = 0; i < r->n_devices; i++)
        if (!open_device(r, i, s))
            return false;
    if (r->n_devices == 1)
        return true;
    r->queue.dispatch = &r->dispatch;
    return CHECK_INT(dispatch_init(&r->dispatch, s->max_rows, s->prefix_cache && !s->whole_prompts, &err), 0);
}

struct engine_stats worker_rig_stats(struct worker_rig *r)
{
    struct engine_stats s;
    queue_stats(&r->queue, &s);
    return s;
}

static bool any_lost(const struct worker_rig *r)
{
    bool lost = false;
    for (int i = 0; i < r->n_devices; i++)
        lost |= r->workers[i].lost;
    return lost;
}

static void check_counts(struct worker_rig *r)
{
    struct engine_stats s = worker_rig_stats(r);
    CHECK_INT(s.queued, 0);
    CHECK_INT(s.running, 0);
    CHECK_INT(s.requests_done + s.requests_failed + s.requests_cancelled, r->n_done + r->n_failed + r->n_cancelled);
    if (!r->x[0]->kind.whole) { /* there half a request may end otherwise than all of it */
        CHECK_INT(s.requests_done, r->n_done);
        CHECK_INT(s.requests_failed, r->n_failed);
        CHECK_INT(s.tokens_scored, r->n_scored);
        CHECK_INT(s.tokens_generated, r->n_generated);
    }
    CHECK_INT(s.rows_cached, r->n_cached);
    for (int i = 0; i < r->n_devices; i++)
        CHECK_INT(r->queue.dev[i].load, 0);
    CHECK(any_lost(r) || s.rows_computed + s.rows_rescored == r->n_rows);
    CHECK_INT(s.kv_rows_held, 0);
    CHECK_INT(s.kv_rows_reserved, 0);
    CHECK_INT(s.tree_nodes, 0);
    CHECK_INT(s.tree_bytes, 0);
    CHECK_INT(s.tree_tokens, 0);
}

static void close_device(struct worker_rig *r, struct worker *w, struct fake_executor *x)
{
    CHECK_INT(w->kv.n_free, w->kv.n);
    CHECK_INT(w->states.n_free, w->states.n);
    CHECK_INT(w->tree.bytes, 0);
    CHECK(w->tables.n_holes == 1 && w->tables.holes[0].n == w->env.kept_base);
    CHECK(w->env.kept_base + (w->kept_tables.n_holes ? w->kept_tables.holes[0].n : 0) == x->face.limits.n_table_entries);
    CHECK_INT(x->n_breaches, 0);
    worker_close(w);
    fake_executor_close(x);
}

void worker_rig_close(struct worker_rig *r)
{
    worker_rig_settle(r);
    worker_rig_clear(r);
    while (worker_rig_turn(r))
        ;
    check_counts(r);
    for (int i = 0; i < r->n_devices; i++)
        close_device(r, &r->workers[i], r->x[i]);
    queue_done(&r->queue);
    dispatch_done(&r->dispatch);
}
