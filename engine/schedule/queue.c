/* The queue between those that ask and the workers. */
#include "engine/schedule/queue.h"
#include "engine/schedule/dispatch.h"
#include "engine/schedule/ticket.h"
#include <errno.h>
#include <string.h>
#include <time.h>

void queue_init(struct queue *q, int n_devices, int max_waiting)
{
    memset(q, 0, sizeof(*q));
    q->n_devices = n_devices;
    q->max_waiting = max_waiting;
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->idle, NULL);
    for (int d = 0; d < n_devices; d++)
        pthread_cond_init(&q->dev[d].wake, NULL);
}

void queue_done(struct queue *q)
{
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->idle);
    for (int d = 0; d < q->n_devices; d++)
        pthread_cond_destroy(&q->dev[d].wake);
}

/* ---- under the lock ------------------------------------------------------------------------------------------ */
static int count_waiting(const struct queue *q)
{
    int n = 0;
    for (int d = 0; d < q->n_devices; d++)
        n += q->dev[d].n_waiting;
    return n;
}

/* Why the device failed that was lost last, if all are; NULL: one is left. */
static const struct err *failure_of_all(const struct queue *q)
{
    for (int d = 0; d < q->n_devices; d++)
        if (!q->dev[d].lost)
            return NULL;
    return &q->dev[q->last_lost].failure;
}

/* One that was chosen may have been lost since: then the one with the fewest rows to compute. */
static int device_left(const struct queue *q, int chosen)
{
    int best = chosen;
    for (int d = 0; q->dev[chosen].lost && d < q->n_devices; d++)
        if (!q->dev[d].lost && (q->dev[best].lost || q->dev[d].load < q->dev[best].load))
            best = d;
    return best;
}

static void send(struct queue *q, struct sequence *s)
{
    struct engine_ticket *t = s->ticket;
    int d = device_left(q, (int)(s->place - t->places));
    struct queue_device *to = &q->dev[d];
    s->place = &t->places[d];
    if (!s->place->used)
        s->place->submitted_at = to->stats.steps_launched;
    s->place->used = true;
    to->load += s->load;
    to->n_waiting++;
    seq_list_push(&to->inbox, s);
    pthread_cond_signal(&to->wake);
}

static void wake_all(struct queue *q)
{
    for (int d = 0; d < q->n_devices; d++)
        pthread_cond_signal(&q->dev[d].wake);
}

/* ---- any thread ---------------------------------------------------------------------------------------------- */
static int check_room(const struct queue *q, const struct engine_ticket *t, struct err *err)
{
    const struct err *lost = failure_of_all(q);
    int n_waiting = count_waiting(q);
    if (lost)
        return err_set(err, ERR_DEVICE, "%s", lost->text);
    if (q->draining)
        return err_set(err, ERR_DRAINING, "the server is shutting down");
    if (n_waiting + t->n_seqs > q->max_waiting && n_waiting)
        return err_set(err, ERR_BUSY, "the queue holds %d requests and takes at most %d; this call has %d", n_waiting, q->max_waiting,
                       t->n_seqs);
    return 0;
}

int queue_submit(struct queue *q, struct engine_ticket *t, struct err *err)
{
    if (q->dispatch)
        dispatch_ticket(q->dispatch, q, t);
    pthread_mutex_lock(&q->lock);
    int r = check_room(q, t, err);
    for (int i = 0; r >= 0 && i < t->n_seqs; i++)
        send(q, &t->seqs[i]);
    pthread_mutex_unlock(&q->lock);
    return r;
}

bool queue_full(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool full = count_waiting(q) >= q->max_waiting;
    pthread_mutex_unlock(&q->lock);
    return full;
}

void queue_cancel(struct queue *q, struct engine_ticket *t)
{
    atomic_store(&t->cancelled, true);
    pthread_mutex_lock(&q->lock);
    for (int d = 0; d < q->n_devices; d++)
        q->dev[d].sweep = true;
    wake_all(q);
    pthread_mutex_unlock(&q->lock);
}

static struct timespec deadline(int timeout_ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

bool queue_wait(struct queue *q, struct engine_ticket *t, int timeout_ms)
{
    struct timespec until = {0};
    if (timeout_ms > 0)
        until = deadline(timeout_ms);
    pthread_mutex_lock(&q->lock);
    int r = timeout_ms ? 0 : ETIMEDOUT;
    while (t->remaining && r != ETIMEDOUT)
        r = timeout_ms < 0 ? pthread_cond_wait(&t->done, &q->lock) : pthread_cond_timedwait(&t->done, &q->lock, &until);
    bool done = !t->remaining;
    pthread_mutex_unlock(&q->lock);
    return done;
}

static bool all_cleared(const struct queue *q, uint64_t mine)
{
    for (int d = 0; d < q->n_devices; d++)
        if (q->dev[d].clears_done < mine)
            return false;
    return true;
}

void queue_clear_cache(struct queue *q)
{
    if (q->dispatch)
        dispatch_clear(q->dispatch);
    pthread_mutex_lock(&q->lock);
    uint64_t mine = ++q->clears_asked; /* one that a worker is at already may miss rows of this moment */
    wake_all(q);
    while (!all_cleared(q, mine) && !q->stop)
        pthread_cond_wait(&q->idle, &q->lock);
    pthread_mutex_unlock(&q->lock);
}

void queue_drain(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->draining = true;
    pthread_mutex_unlock(&q->lock);
}

void queue_stop(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    wake_all(q);
    pthread_cond_broadcast(&q->idle);
    pthread_mutex_unlock(&q->lock);
}

static void device_stats(const struct queue_device *d, struct engine_stats *ret)
{
    *ret = d->stats;
    ret->queued = d->n_waiting;
    ret->running = d->n_running;
}

void queue_device_stats(struct queue *q, int device, struct engine_stats *ret)
{
    pthread_mutex_lock(&q->lock);
    device_stats(&q->dev[device], ret);
    pthread_mutex_unlock(&q->lock);
}

void queue_stats(struct queue *q, struct engine_stats *ret)
{
    queue_device_stats(q, 0, ret);
    for (int d = 1; d < q->n_devices; d++) {
        struct engine_stats one;
        queue_device_stats(q, d, &one);
        engine_stats_add(ret, &one);
    }
}

int queue_device_health(struct queue *q, int device, struct err *err)
{
    pthread_mutex_lock(&q->lock);
    int code = q->dev[device].failure.code;
    if (code < 0 && err)
        *err = q->dev[device].failure;
    pthread_mutex_unlock(&q->lock);
    return code;
}

int queue_health(struct queue *q, struct err *err)
{
    pthread_mutex_lock(&q->lock);
    const struct err *lost = failure_of_all(q);
    int code = lost ? lost->code : 0;
    if (lost && err)
        *err = *lost;
    pthread_mutex_unlock(&q->lock);
    return code;
}

/* ---- the worker of a device ---------------------------------------------------------------------------------- */
static void hand_over(struct queue_device *d, struct seq_list *done)
{
    for (struct sequence *s = done->head, *next; s; s = next) {
        struct engine_ticket *t = s->ticket;
        next = s->next; /* s is the ticket's, and may be freed once the lock is released */
        d->load -= s->load;
        if (--t->remaining)
            continue;
        ticket_complete(t);
        pthread_cond_broadcast(&t->done);
    }
    *done = (struct seq_list){0};
}

void queue_deliver(struct queue *q, int device, struct queue_delivery *d, const struct engine_stats *counts)
{
    struct queue_device *me = &q->dev[device];
    for (const struct sequence *s = d->done.head; s; s = s->next)
        if (s->req->on_done)
            s->req->on_done(s->req->user); /* without the lock: it may take others */
    pthread_mutex_lock(&q->lock);
    me->stats = *counts;
    me->n_waiting -= d->started + d->ended_waiting;
    me->n_running += d->started - d->ended_running;
    if (d->cleared) {
        me->clears_done = me->clears_taken;
        pthread_cond_broadcast(&q->idle);
    }
    hand_over(me, &d->done);
    pthread_mutex_unlock(&q->lock);
    *d = (struct queue_delivery){0};
}

/* Under the lock. */
static bool calls(const struct queue *q, const struct queue_device *me)
{
    return me->inbox.n || q->stop || me->sweep || me->woken || me->clears_taken < q->clears_asked;
}

bool queue_calls(struct queue *q, int device)
{
    pthread_mutex_lock(&q->lock);
    bool any = calls(q, &q->dev[device]);
    pthread_mutex_unlock(&q->lock);
    return any;
}

void queue_wake(struct queue *q, int device)
{
    pthread_mutex_lock(&q->lock);
    q->dev[device].woken = true;
    pthread_cond_signal(&q->dev[device].wake);
    pthread_mutex_unlock(&q->lock);
}

struct queue_orders queue_take(struct queue *q, int device, struct seq_list *into, bool idle)
{
    struct queue_device *me = &q->dev[device];
    pthread_mutex_lock(&q->lock);
    while (idle && !calls(q, me))
        pthread_cond_wait(&me->wake, &q->lock);
    struct queue_orders o = {.stop = q->stop, .sweep = me->sweep, .clear = me->clears_taken < q->clears_asked};
    me->sweep = me->woken = false;
    me->clears_taken = q->clears_asked;
    seq_list_move_all(into, &me->inbox);
    pthread_mutex_unlock(&q->lock);
    return o;
}

void queue_fail(struct queue *q, int device, const struct err *err)
{
    pthread_mutex_lock(&q->lock);
    q->dev[device].failure = *err;
    q->dev[device].lost = true;
    q->last_lost = device;
    pthread_mutex_unlock(&q->lock);
}

static void forget_load(struct queue *q, struct queue_device *d, const struct seq_list *list)
{
    pthread_mutex_lock(&q->lock);
    for (struct sequence *s = list->head; s; s = s->next) {
        d->load -= s->load;
        s->load = 0;
    }
    pthread_mutex_unlock(&q->lock);
}

bool queue_move(struct queue *q, int device, struct seq_list *list, int n_running)
{
    struct queue_device *me = &q->dev[device];
    forget_load(q, me, list);
    if (q->dispatch)
        dispatch_list(q->dispatch, q, list);
    pthread_mutex_lock(&q->lock);
    bool moves = !q->stop && !failure_of_all(q);
    if (moves) {
        me->n_running -= n_running;
        me->n_waiting -= list->n - n_running;
    }
    while (moves && list->n) {
        struct sequence *s = list->head;
        seq_list_remove(list, s);
        send(q, s);
    }
    for (struct sequence *s = list->head; s; s = s->next)
        s->load = 0;                                /* they are where they were, and count no more */
    for (int d = 0; moves && d < q->n_devices; d++) /* a ticket may have been cancelled while its sequences were on their way */
        q->dev[d].sweep = true;
    pthread_mutex_unlock(&q->lock);
    return moves;
}
