/* See worker_rig.h. */
#include "tests/unit/worker_rig.h"
#include "tests/check.h"
#include <stdlib.h>
#include <time.h>

enum { MOST_TURNS = 20000 /* to answer all jobs */, TURNS_OF_CANCELLED = 6 };

/* ---- tickets --------------------------------------------------------------------------------------------------------- */
int worker_rig_submit(struct worker_rig *r, int j)
{
    struct job *job = &r->jobs[j];
    struct err err;
    int n = 1 + traffic_random(WORKER_RIG_GROUP);
    *job = (struct job){0};
    for (int i = 0; i < n; i++)
        job->reqs[i] = traffic_request(&job->watches[i]);
    job->reqs[0].client = (uint64_t)traffic_random(4);
    job->reqs[0].call = (uint64_t)traffic_random(3);
    if (!CHECK_INT(ticket_new(&r->queue, job->reqs, n, FAKE_LAYERS, r->x->kind.whole, &job->ticket), 0))
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
    bool ok = excused || (res->code == expect_code(q, r->x->kind) && (res->code || expect_result(q, res, TRAFFIC_EOS, r->x->kind)));
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
/* Every slot is free, in the tree, or taken by a step in flight or, of router states, by a running sequence. */
static void check_slots(const struct worker *w)
{
    int in_flight = 0, states = 0;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        in_flight += w->steps[i].number ? step_rows_slots(&w->steps[i].rows) : 0;
        states += w->steps[i].number ? w->steps[i].rows.n_saves : 0;
    }
    for (const struct sequence *q = policy_next(&w->policy, NULL); q; q = policy_next(&w->policy, (struct sequence *)(uintptr_t)q))
        states += q->state_slot >= 0;
    CHECK_INT(w->kv.n_free + w->tree.held_slots + in_flight, w->kv.n);
    CHECK_INT(w->states.n_free + w->tree.n_states + states, w->states.n);
    CHECK(w->tree.pinned_slots <= w->tree.held_slots);
    CHECK(w->policy.n_running || w->tree.bytes <= w->tree.max_bytes);
}

/* A sequence that has a token more than when it made way last, or by chance. */
static struct sequence *find_victim(struct worker_rig *r)
{
    struct policy *p = &r->worker.policy;
    for (struct sequence *s = policy_next(p, NULL); s; s = policy_next(p, s)) {
        struct expect_watch *w = s->req->user;
        bool may = s->where == SEQUENCE_RUNNING && !s->in_flight && !s->done && s < s->ticket->seqs + s->ticket->n;
        if (!may || (s->n_new < w->n_preempted && traffic_random(40)))
            continue;
        w->n_preempted = s->n_new + 1;
        return s;
    }
    return NULL;
}

static void preempt(struct worker_rig *r)
{
    struct sequence *s;
    while ((s = find_victim(r)))
        policy_preempt(&r->worker.policy, &r->worker.env, s);
}

bool worker_rig_turn(struct worker_rig *r)
{
    struct queue *q = &r->queue;
    const struct queue_delivery *d = &r->worker.delivery;
    if (policy_idle(&r->worker.policy) && !q->dev[0].inbox.n && !q->dev[0].sweep && q->dev[0].clears_taken == q->clears_asked) {
        if (!d->done.n && !d->cleared)
            return false;
        q->dev[0].sweep = true; /* it would deliver and then sleep */
    }
    CHECK(worker_turn(&r->worker));
    if (r->preempts)
        preempt(r);
    check_slots(&r->worker);
    r->n_turns++;
    for (int j = 0; j < WORKER_RIG_JOBS; j++) { /* what is cancelled does not run on, but for steps in flight */
        const struct job *job = &r->jobs[j];
        CHECK(!job->ticket || !job->cancelled || r->n_turns - job->cancelled_at < TURNS_OF_CANCELLED || queue_wait(q, job->ticket, 0));
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

void worker_rig_settle(struct worker_rig *r)
{
    for (int turns = 0; !all_answered(r); turns++)
        if (!CHECK(worker_rig_turn(r)) || !CHECK(turns < MOST_TURNS))
            exit(1); /* a sequence was lost, or runs for ever */
}

/* ---- open and close -------------------------------------------------------------------------------------------------- */
bool worker_rig_open(struct worker_rig *r, const struct worker_setting *s)
{
    static const int32_t eos = TRAFFIC_EOS;
    struct worker_options o = {.prefix_cache = s->prefix_cache, .tree_bytes = s->tree_bytes, .eos_ids = &eos, .n_eos = 1};
    struct err err;
    struct executor_limits limits = {.max_rows = s->max_rows,
                                     .max_steps = s->max_steps,
                                     .n_kv_slots = s->n_kv_slots,
                                     .n_table_entries = s->n_kv_slots,
                                     .n_state_slots = s->n_state_slots,
                                     .whole_prompts = s->whole_prompts,
                                     .max_positions = TRAFFIC_LEN + TRAFFIC_NEW};
    *r = (struct worker_rig){.x = fake_executor_open(&limits), .preempts = s->preempts};
    queue_init(&r->queue, 1, WORKER_RIG_JOBS * WORKER_RIG_GROUP);
    if (!CHECK(r->x) || !CHECK_INT(worker_init(&r->worker, &r->x->face, &r->queue, &o, &err), 0))
        return false;
    if (s->n_state_slots) { /* sequences here are short: copies must lie closer than they do in earnest */
        CHECK_INT(r->worker.env.state_every, WORKER_STATE_EVERY);
        r->worker.env.state_every = 7;
    }
    return true;
}

static void check_counts(struct worker_rig *r)
{
    struct engine_stats s;
    queue_stats(&r->queue, &s);
    CHECK_INT(s.queued, 0);
    CHECK_INT(s.running, 0);
    CHECK_INT(s.requests_done + s.requests_failed + s.requests_cancelled, r->n_done + r->n_failed + r->n_cancelled);
    if (!r->x->kind.whole) { /* there half a request may end otherwise than all of it */
        CHECK_INT(s.requests_done, r->n_done);
        CHECK_INT(s.requests_failed, r->n_failed);
        CHECK_INT(s.tokens_scored, r->n_scored);
        CHECK_INT(s.tokens_generated, r->n_generated);
    }
    CHECK_INT(s.rows_cached, r->n_cached);
    CHECK(r->worker.lost || s.rows_computed + s.rows_rescored == r->n_rows);
    CHECK_INT(s.kv_rows_held, 0);
    CHECK_INT(s.kv_rows_reserved, 0);
    CHECK_INT(s.tree_nodes, 0);
    CHECK_INT(s.tree_tokens, 0);
}

void worker_rig_close(struct worker_rig *r)
{
    struct worker *w = &r->worker;
    worker_rig_settle(r);
    worker_rig_clear(r);
    while (worker_rig_turn(r))
        ;
    check_counts(r);
    CHECK_INT(w->kv.n_free, w->kv.n);
    CHECK_INT(w->states.n_free, w->states.n);
    CHECK_INT(w->tree.bytes, 0);
    CHECK(w->tables.n_holes == 1 && w->tables.holes[0].n == w->env.kept_base);
    CHECK(w->env.kept_base + (w->kept_tables.n_holes ? w->kept_tables.holes[0].n : 0) == r->x->face.limits.n_table_entries);
    CHECK_INT(r->x->n_breaches, 0);
    worker_close(w);
    queue_done(&r->queue);
    fake_executor_close(r->x);
}
