/* Turns of the worker: orders, admission, one step launched or taken in, results handed over. */
#include "engine/schedule/worker.h"
#include "common/monotonic.h"
#include "engine/schedule/ticket.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- sequences that end ------------------------------------------------------------------------------------- */
static void count_result(struct engine_stats *c, const struct sequence *q)
{
    bool is_request = q < q->ticket->seqs + q->ticket->n; /* else it scores for one */
    if (q->result.code == ERR_CANCELLED)
        c->requests_cancelled += is_request;
    else if (q->result.code < 0)
        c->requests_failed += is_request;
    else
        c->requests_done += is_request;
    if (q->result.code >= 0) {
        c->tokens_scored += (uint64_t)q->result.n_scored;
        c->tokens_generated += (uint64_t)q->n_new;
        c->rows_cached += (uint64_t)q->n_cached;
    }
}

/* The sequence is in no list, and has no place in the policy. code: 0, or why it failed; one that is done already keeps its result. */
static void end_sequence(struct worker *w, struct sequence *q, int code, const struct err *err)
{
    if (!q->done)
        sequence_finish(q, &w->env, code, err);
    count_result(&w->counts, q);
    seq_list_push(&w->delivery.done, q);
}

/* One that waits or runs. */
static void end_here(struct worker *w, struct sequence *q, int code, const struct err *err)
{
    *(q->where == SEQUENCE_RUNNING ? &w->delivery.ended_running : &w->delivery.ended_waiting) += 1;
    policy_remove(&w->policy, q);
    end_sequence(w, q, code, err);
}

/* Every sequence, none of them away; or those of cancelled tickets, of which the ones that are away end when they are back. */
static void end_all(struct worker *w, bool all, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "%s", text);
    for (struct sequence *q = policy_next(&w->policy, NULL), *next; q; q = next) {
        next = policy_next(&w->policy, q);
        if (all || (!sequence_away(q) && atomic_load(&q->ticket->cancelled)))
            end_here(w, q, code, &err);
    }
}

/* A running sequence whose step was collected, or whose token was told: it ends if it has all it wanted, failed, or is cancelled, and begins again if
 * what it joined was lost; but not while its token is being drawn. */
static void take_stock(struct worker *w, struct sequence *q)
{
    struct err err;
    if (q->drawing)
        return;
    if (!q->lost_branch && (q->done || q->result.finish != FINISH_NONE || (!q->n_flights && !sequence_due(q))))
        end_here(w, q, 0, NULL);
    else if (atomic_load(&q->ticket->cancelled))
        end_here(w, q, err_set(&err, ERR_CANCELLED, "the request was cancelled"), &err);
    else if (q->lost_branch)
        policy_preempt(&w->policy, &w->env, q);
}

static void deliver(struct worker *w)
{
    struct engine_stats *c = &w->counts;
    c->kv_rows_held = (uint64_t)w->tree.held_slots;
    c->kv_rows_most = (uint64_t)w->kv.most;
    c->kv_rows_reserved = (uint64_t)policy_promised(&w->policy);
    c->tree_nodes = w->tree.n_linked;
    c->tree_bytes = w->tree.bytes;
    c->tree_tokens = w->tree.tokens;
    c->evicted_tokens = w->tree.evicted_tokens;
    c->states_held = (uint64_t)w->tree.n_states;
    c->states_total = (uint64_t)w->states.n;
    c->steps_launched = w->n_launched;
    c->preemptions = w->policy.n_preempted;
    queue_deliver(w->queue, w->device, &w->delivery, c);
}

/* ---- steps -------------------------------------------------------------------------------------------------- */
/* The first that is free, so that steps which follow each other one by one, as in decoding, use the same buffers; NULL: all are in flight. */
static struct step *free_step(struct worker *w)
{
    for (int i = 0; i < w->x->limits.max_steps; i++)
        if (!w->steps[i].number)
            return &w->steps[i];
    return NULL;
}

/* The one launched first; NULL: none is in flight. */
static struct step *oldest_step(struct worker *w)
{
    struct step *oldest = NULL;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        struct step *s = &w->steps[i];
        if (s->number && (!oldest || s->number < oldest->number))
            oldest = s;
    }
    return oldest;
}

/* Those that belong to sequences. */
static int64_t slots_in_flight(const struct worker *w)
{
    int64_t n = 0;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        const struct step *s = &w->steps[i];
        n += s->number ? (int64_t)(s->rows.n_append - s->n_dropped) * s->rows.n_layers : 0;
    }
    return n;
}

/* The first rows of a ticket on this device are in the step that is being launched: how many steps it waited for them, that one included, is counted. */
static void note_begin(struct worker *w, struct ticket_place *p)
{
    uint64_t steps = w->n_launched - p->submitted_at;
    int i = 0;
    if (p->began_at)
        return;
    p->began_at = w->n_launched;
    while (i < ENGINE_STARTS - 1 && steps > (uint64_t)engine_start_edges[i])
        i++;
    w->counts.starts[p->lane][i]++;
    w->counts.start_steps[p->lane] += steps;
}

/* What a round of admission led to. Returns its code. */
static int take_round(struct worker *w, struct policy_round round)
{
    w->delivery.started += round.started;
    while (round.complete.n) {
        struct sequence *q = round.complete.head;
        seq_list_remove(&round.complete, q);
        w->delivery.ended_waiting++;
        end_sequence(w, q, 0, NULL);
    }
    if (w->delivery.done.n)
        deliver(w); /* now: a step may take long */
    return round.code;
}

/* Of the n sequences that were granted rows, those that branch from others, or those that do not. */
static void pack(struct worker *w, struct step *s, int n, bool branches)
{
    for (int i = 0; i < n; i++) {
        struct sequence *q = w->policy.grants[i].seq;
        if ((q->branch_of != NULL) != branches)
            continue;
        sequence_pack(q, &w->env, s, w->policy.grants[i].n);
        note_begin(w, q->place);
    }
}

static int launch(struct worker *w, struct step *s, struct err *err)
{
    struct step_rows *rows = &s->rows;
    int n, r = take_round(w, policy_join(&w->policy, &w->env));
    if (r < 0)
        return r;
    n = w->x->limits.whole_prompts ? policy_divide_whole(&w->policy) : policy_divide(&w->policy);
    step_rows_clear(rows);
    s->overlapped = w->n_launched > w->counts.steps;
    s->number = ++w->n_launched;
    s->n_dropped = 0;
    pack(w, s, n, false);
    pack(w, s, n, true);
    tree_make_room(&w->tree, step_rows_slots(rows));
    slots_take(&w->kv, step_rows_slots(rows), rows->reserved);
    return w->x->ops->launch(w->x, s->id, rows, err);
}

/* The next sequence of a step, whose runs lie side by side; *i: 0 at first, then where to go on. NULL: that was the last. Dropped runs are passed. */
static struct sequence *next_in_step(const struct step *s, int *i)
{
    struct sequence *q = NULL;
    while (*i < s->rows.n_runs && (!q || s->runs[*i].seq == q))
        q = s->runs[(*i)++].seq;
    return q;
}

/* The step is over: its sequences may be packed again, or finished. */
static void land(struct step *s)
{
    struct sequence *q;
    for (int i = 0; (q = next_in_step(s, &i));) {
        q->n_flights--;
        q->follows = q->follows && q->n_flights;
    }
    s->number = 0;
}

static int collect(struct worker *w, struct step *s, struct err *err)
{
    double start = monotonic_seconds();
    int r = w->x->ops->wait(w->x, s->id, &s->results, err);
    w->counts.wait_s += monotonic_seconds() - start;
    if (r < 0)
        return r;
    w->counts.steps++;
    w->counts.steps_overlapped += s->overlapped;
    land(s);
    commit_step(&w->commit, &w->env, s, &w->counts);
    for (int i = 0; i < s->rows.n_want; i++)
        w->n_drawing += s->rows.draws[i] != NULL;
    struct sequence *q;
    for (int i = 0; (q = next_in_step(s, &i));)
        take_stock(w, q);
    return 0;
}

/* Tokens that were drawn go to their sequences. */
static void take_draws(struct worker *w)
{
    struct draw *next = w->n_drawing ? w->x->ops->drawn(w->x) : NULL;
    while (next) {
        struct sequence *q = sequence_of_draw(next);
        next = next->next;
        w->n_drawing--;
        sequence_commit_draw(q, &w->env);
        take_stock(w, q);
    }
}

static void drop_steps(struct worker *w, struct err *err)
{
    w->x->ops->drop(w->x, err);
    w->n_drawing = 0;
    for (struct sequence *q = policy_next(&w->policy, NULL); q; q = policy_next(&w->policy, q))
        q->drawing = false;
    for (int i = 0; i < w->x->limits.max_steps; i++) {
        struct step *s = &w->steps[i];
        if (!s->number)
            continue;
        slots_give(&w->kv, s->rows.reserved, step_rows_slots(&s->rows));
        for (int j = 0; j < s->rows.n_saves; j++)
            slots_give(&w->states, &s->rows.saves[j].slot, 1);
        land(s);
    }
}

/* ---- a lost device ------------------------------------------------------------------------------------------ */
static void count_losses(struct worker *w)
{
    for (struct sequence *q = policy_next(&w->policy, NULL); q; q = policy_next(&w->policy, q))
        q->n_losses += q->n_flights > 0;
}

/* Takes out what others may run: what has not been cancelled, and was not in the steps of too many devices that failed. Returns how many ran. */
static int take_out(struct worker *w, struct seq_list *to)
{
    int n_running = 0;
    for (struct sequence *q = policy_next(&w->policy, NULL), *next; q; q = next) {
        next = policy_next(&w->policy, q);
        if (q->done || q->n_losses >= WORKER_LOSSES_MAX || atomic_load(&q->ticket->cancelled))
            continue;
        bool runs = q->where == SEQUENCE_RUNNING;
        n_running += runs;
        policy_remove(&w->policy, q);
        if (runs)
            sequence_withdraw(q, &w->env);
        seq_list_push(to, q);
    }
    return n_running;
}

static void end_list(struct worker *w, struct seq_list *list, int n_running)
{
    w->delivery.ended_running += n_running;
    w->delivery.ended_waiting += list->n - n_running;
    while (list->n) {
        struct sequence *q = list->head;
        seq_list_remove(list, q);
        end_sequence(w, q, ERR_DEVICE, &w->failure);
    }
}

/* All that is here goes to other devices. Without any, it ends. */
static void give_up(struct worker *w)
{
    struct seq_list list = {0};
    int n_running = take_out(w, &list), n = list.n;
    if (n && queue_move(w->queue, w->device, &list, n_running))
        w->counts.requests_moved += (uint64_t)n;
    else
        end_list(w, &list, n_running);
    end_all(w, false, ERR_CANCELLED, "the request was cancelled");
    end_all(w, true, ERR_DEVICE, w->failure.text);
}

/* code: what failed; err: what is known of it, code 0 if nothing is. */
static void lose_device(struct worker *w, int code, struct err *err)
{
    count_losses(w);
    drop_steps(w, err);
    if (err->code >= 0)
        err_set(err, code, "a step failed with %s", err_name(code));
    w->lost = true;
    err_set(&w->failure, ERR_DEVICE, "%s", err->text);
    queue_fail(w->queue, w->device, &w->failure);
    if (w->queue->n_devices > 1)
        log_error(w->log, "device %d failed; others take over what it had, as long as there are any: %s", w->number, err->text);
    else
        log_error(w->log, "the device failed: %s", err->text);
    give_up(w);
}

static void note_busy(struct worker *w, double seconds)
{
    struct engine_stats *c = &w->counts;
    struct executor_stats s;
    w->x->ops->report(w->x, seconds, &s);
    c->busy_s += seconds;
    c->matmul_s = s.matmul_s;
    c->attention_s = s.attention_s;
    c->other_s = s.other_s;
    c->memory_total_bytes = s.memory_total_bytes;
    c->memory_free_bytes = s.memory_free_bytes;
}

/* ---- turns -------------------------------------------------------------------------------------------------- */
/* Less than half a step waits for those who can still come into it. */
static bool should_launch(const struct worker *w, int64_t due, bool beside)
{
    if (due >= (w->x->limits.max_rows + 1) / 2)
        return true;
    if (beside)
        return due > 0 && !policy_more_to_come(&w->policy);
    return due > 0 && (!w->n_drawing || policy_due_undrawn(&w->policy));
}

/* Draws tokens until something comes. */
static void help_draw(struct worker *w)
{
    bool any = true;
    while (any && !queue_calls(w->queue, w->device))
        any = w->x->ops->help_draw(w->x);
    w->waits = !any;
}

/* Admits, then launches a step or takes one in. */
static void run_step(struct worker *w)
{
    struct err err = {0};
    struct step *first = oldest_step(w), *s = free_step(w);
    int r = s ? take_round(w, policy_admit(&w->policy, &w->env, slots_in_flight(w))) : 0;
    double start = monotonic_seconds();
    if (r >= 0 && s && should_launch(w, w->policy.due, first))
        r = launch(w, s, &err);
    else if (r >= 0 && first)
        r = collect(w, first, &err);
    else if (r >= 0 && w->n_drawing)
        help_draw(w);
    note_busy(w, monotonic_seconds() - start);
    if (r < 0)
        lose_device(w, r, &err);
}

bool worker_turn(struct worker *w)
{
    deliver(w);
    struct seq_list arrived = {0};
    bool idle = policy_idle(&w->policy);
    if (idle && !w->lost && !oldest_step(w) && !queue_calls(w->queue, w->device))
        w->x->ops->rest(w->x);
    struct queue_orders o = queue_take(w->queue, w->device, &arrived, idle || w->waits);
    w->waits = false;
    policy_arrive(&w->policy, &arrived);
    if (o.stop)
        return false;
    if (o.clear) {
        tree_clear(&w->tree);
        w->delivery.cleared = true;
    }
    take_draws(w);
    if (o.sweep)
        end_all(w, false, ERR_CANCELLED, "the request was cancelled");
    if (w->lost)
        give_up(w);
    else
        run_step(w);
    return true;
}

static void *worker_main(void *arg)
{
    while (worker_turn(arg))
        ;
    return NULL;
}

/* ---- open and close ----------------------------------------------------------------------------------------- */
static int init_memory(struct worker *w, const struct worker_options *o, struct err *err)
{
    const struct executor_limits *l = &w->x->limits;
    struct policy_reserve kept = policy_reserve(l);
    w->env.table_host = malloc((size_t)l->n_layers * (size_t)l->max_positions * sizeof(int));
    if (w->env.table_host && slots_init(&w->kv, l->n_kv_slots) >= 0 && slots_init(&w->states, l->n_state_slots) >= 0 &&
        extents_init(&w->tables, l->n_table_entries - kept.entries) >= 0 && extents_init(&w->kept_tables, kept.entries) >= 0 &&
        route_bits_init(&w->bits, l->layers, l->n_layers) >= 0 &&
        tree_init(&w->tree, &w->kv, l->n_state_slots ? &w->states : NULL, &w->bits, o->prefix_cache && !l->whole_prompts, o->tree_bytes) >=
            0)
        return 0;
    return err_set(err, ERR_NOMEM, "no memory for the prefix tree and the lists of %d KV rows", l->n_kv_slots);
}

static void wake(void *arg)
{
    const struct worker *w = arg;
    queue_wake(w->queue, w->device);
}

int worker_init(struct worker *w, struct executor *x, struct queue *q, const struct worker_options *o, struct err *err)
{
    *w = (struct worker){.x = x, .queue = q, .device = o->device, .number = o->number, .log = o->log};
    int r = init_memory(w, o, err);
    if (r >= 0)
        r = policy_init(&w->policy, x->limits.max_rows, x->limits.n_layers, err);
    if (r >= 0)
        r = commit_init(&w->commit, &w->bits, err);
    for (int i = 0; r >= 0 && i < x->limits.max_steps; i++)
        r = step_init(&w->steps[i], i, &x->limits, err);
    struct policy_reserve kept = policy_reserve(&x->limits);
    w->policy.reserve = kept.slots;
    w->policy.state_reserve = kept.states;
    q->reuses = o->prefix_cache && !x->limits.whole_prompts;
    w->env = (struct sequence_env){.x = x,
                                   .tree = &w->tree,
                                   .tables = &w->tables,
                                   .kept_tables = &w->kept_tables,
                                   .kept_base = x->limits.n_table_entries - kept.entries,
                                   .states_kept = kept.states,
                                   .bits = &w->bits,
                                   .table_host = w->env.table_host,
                                   .eos_ids = o->eos_ids,
                                   .n_eos = o->n_eos,
                                   .whole_prompts = x->limits.whole_prompts,
                                   .state_every = x->limits.n_state_slots ? WORKER_STATE_EVERY : 0};
    assert(!x->limits.branches || !x->limits.n_state_slots);
    if (r < 0)
        worker_close(w);
    else {
        x->ops->notify(x, wake, w);
        note_busy(w, 0);
    }
    return r;
}

int worker_start(struct worker *w, struct err *err)
{
    w->started = !pthread_create(&w->thread, NULL, worker_main, w);
    return w->started ? 0 : err_set(err, ERR_NOMEM, "cannot start the engine's thread");
}

/* What is still there when the worker stops. */
static void end_rest(struct worker *w)
{
    struct seq_list arrived = {0};
    queue_take(w->queue, w->device, &arrived, false);
    policy_arrive(&w->policy, &arrived);
    drop_steps(w, NULL);
    end_all(w, true, ERR_CANCELLED, "the engine is closing");
    deliver(w);
}

void worker_close(struct worker *w)
{
    if (!w->x)
        return;
    if (w->started) {
        queue_stop(w->queue);
        pthread_join(w->thread, NULL);
    }
    if (w->steps[0].runs && w->tree.root)
        end_rest(w);
    for (int i = 0; i < EXECUTOR_STEPS_MAX; i++)
        step_done(&w->steps[i]);
    commit_done(&w->commit);
    policy_done(&w->policy);
    tree_done(&w->tree);
    route_bits_done(&w->bits);
    extents_done(&w->tables);
    extents_done(&w->kept_tables);
    slots_done(&w->states);
    slots_done(&w->kv);
    free(w->env.table_host);
    memset(w, 0, sizeof(*w));
}
