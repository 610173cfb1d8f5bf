/* The queue between those that ask and the worker. */
#include "engine/schedule/queue.h"
#include "engine/schedule/ticket.h"
#include <errno.h>
#include <string.h>
#include <time.h>

void queue_init(struct queue *q, int max_waiting)
{
    *q = (struct queue){.max_waiting = max_waiting};
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->wake, NULL);
    pthread_cond_init(&q->idle, NULL);
}

void queue_done(struct queue *q)
{
    pthread_mutex_destroy(&q->lock);
    pthread_cond_destroy(&q->wake);
    pthread_cond_destroy(&q->idle);
}

/* ---- any thread ---------------------------------------------------------------------------------------------- */
static int check_room(const struct queue *q, const struct engine_ticket *t, struct err *err)
{
    if (q->failure.code < 0)
        return err_set(err, ERR_DEVICE, "%s", q->failure.text);
    if (q->draining)
        return err_set(err, ERR_DRAINING, "the server is shutting down");
    if (q->n_waiting + t->n_seqs > q->max_waiting && q->n_waiting)
        return err_set(err, ERR_BUSY, "the queue holds %d requests and takes at most %d; this call has %d", q->n_waiting, q->max_waiting,
                       t->n_seqs);
    return 0;
}

int queue_submit(struct queue *q, struct engine_ticket *t, struct err *err)
{
    pthread_mutex_lock(&q->lock);
    int r = check_room(q, t, err);
    if (r >= 0) {
        for (int i = 0; i < t->n_seqs; i++)
            seq_list_push(&q->inbox, &t->seqs[i]);
        q->n_waiting += t->n_seqs;
        t->submitted_at = q->stats.steps_launched;
        pthread_cond_signal(&q->wake);
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

bool queue_full(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    bool full = q->n_waiting >= q->max_waiting;
    pthread_mutex_unlock(&q->lock);
    return full;
}

void queue_cancel(struct queue *q, struct engine_ticket *t)
{
    atomic_store(&t->cancelled, true);
    pthread_mutex_lock(&q->lock);
    q->sweep = true;
    pthread_cond_signal(&q->wake);
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

void queue_clear_cache(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    uint64_t mine = ++q->clears_asked; /* one that the worker is at already may miss rows of this moment */
    pthread_cond_signal(&q->wake);
    while (q->clears_done < mine && !q->stop)
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
    pthread_cond_signal(&q->wake);
    pthread_cond_broadcast(&q->idle);
    pthread_mutex_unlock(&q->lock);
}

void queue_stats(struct queue *q, struct engine_stats *ret)
{
    pthread_mutex_lock(&q->lock);
    *ret = q->stats;
    ret->queued = q->n_waiting;
    ret->running = q->n_running;
    pthread_mutex_unlock(&q->lock);
}

int queue_health(struct queue *q, struct err *err)
{
    pthread_mutex_lock(&q->lock);
    int code = q->failure.code;
    if (code < 0 && err)
        *err = q->failure;
    pthread_mutex_unlock(&q->lock);
    return code;
}

/* ---- the worker ---------------------------------------------------------------------------------------------- */
static void hand_over(struct seq_list *done)
{
    for (struct sequence *s = done->head, *next; s; s = next) {
        struct engine_ticket *t = s->ticket;
        next = s->next; /* s is the ticket's, and may be freed once the lock is released */
        if (--t->remaining)
            continue;
        ticket_complete(t);
        pthread_cond_broadcast(&t->done);
    }
    *done = (struct seq_list){0};
}

void queue_deliver(struct queue *q, struct queue_delivery *d, const struct engine_stats *counts)
{
    for (const struct sequence *s = d->done.head; s; s = s->next)
        if (s->req->on_done)
            s->req->on_done(s->req->user); /* without the lock: it may take others */
    pthread_mutex_lock(&q->lock);
    q->stats = *counts;
    q->n_waiting -= d->started + d->ended_waiting;
    q->n_running += d->started - d->ended_running;
    if (d->cleared) {
        q->clears_done = q->clears_taken;
        pthread_cond_broadcast(&q->idle);
    }
    hand_over(&d->done);
    pthread_mutex_unlock(&q->lock);
    *d = (struct queue_delivery){0};
}

struct queue_orders queue_take(struct queue *q, struct seq_list *into, bool idle)
{
    pthread_mutex_lock(&q->lock);
    while (idle && !q->inbox.n && !q->stop && !q->sweep && q->clears_taken == q->clears_asked)
        pthread_cond_wait(&q->wake, &q->lock);
    struct queue_orders o = {.stop = q->stop, .sweep = q->sweep, .clear = q->clears_taken < q->clears_asked};
    q->sweep = false;
    q->clears_taken = q->clears_asked;
    seq_list_move_all(into, &q->inbox);
    pthread_mutex_unlock(&q->lock);
    return o;
}

void queue_fail(struct queue *q, const struct err *err)
{
    pthread_mutex_lock(&q->lock);
    q->failure = *err;
    pthread_mutex_unlock(&q->lock);
}
