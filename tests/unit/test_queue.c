/* The queue: what it takes and refuses, orders, hand-over, and who it wakes. Sequences here are only numbers in lists. */
#include "engine/schedule/queue.h"
#include "engine/schedule/ticket.h"
#include "tests/check.h"
#include <sched.h>
#include <stdlib.h>

static void count_done(void *user)
{
    ++*(int *)user;
}

static int n_done;
static const int32_t token = 1;

/* Every second request counts that it is told to be done. All tickets borrow the same ones. */
static struct engine_ticket *new_ticket(struct queue *q, int n)
{
    static struct eval_request reqs[100];
    struct engine_ticket *t;
    for (int i = 0; i < n; i++)
        reqs[i] =
            (struct eval_request){.tokens = &token, .n_tokens = 1, .score_begin = 1, .on_done = i % 2 ? NULL : count_done, .user = &n_done};
    if (!CHECK_INT(ticket_new(q, reqs, n, 1, false, &t), 0))
        exit(1);
    return t;
}

static int submit(struct queue *q, struct engine_ticket *t)
{
    struct err err;
    return queue_submit(q, t, &err);
}

static void check_counts(struct queue *q, int queued, int running)
{
    struct engine_stats s;
    queue_stats(q, &s);
    CHECK_INT(s.queued, queued);
    CHECK_INT(s.running, running);
}

/* Sequences wait until the worker says that they run or ended; taking them is not enough. */
static void test_limits(void)
{
    static const struct {
        int max, waiting, n, code;
    } cases[] = {
        {8, 0, 1, 0},        {8, 0, 8, 0},        {8, 0, 9, 0 /* larger than the queue, which is empty */},
        {8, 1, 9, ERR_BUSY}, {8, 7, 1, 0},        {8, 8, 1, ERR_BUSY},
        {8, 5, 4, ERR_BUSY}, {8, 5, 3, 0},        {8, 100, 1, ERR_BUSY},
        {1, 0, 1, 0},        {1, 1, 1, ERR_BUSY},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct queue q;
        struct engine_ticket *first = NULL, *second;
        struct seq_list taken = {0};
        struct err err = {0};
        queue_init(&q, 1, cases[i].max);
        second = new_ticket(&q, cases[i].n);
        if (cases[i].waiting)
            CHECK_INT(submit(&q, first = new_ticket(&q, cases[i].waiting)), 0);
        queue_take(&q, 0, &taken, false);
        CHECK_INT(queue_submit(&q, second, &err), cases[i].code);
        CHECK_INT(q.dev[0].inbox.n, cases[i].code ? 0 : cases[i].n); /* all of a ticket or none */
        check_counts(&q, cases[i].waiting + (cases[i].code ? 0 : cases[i].n), 0);
        CHECK(!cases[i].code == !strstr(err.text, "takes at most"));
        if (first)
            ticket_free(first);
        ticket_free(second);
        queue_done(&q);
    }
}

static void test_refusals(void)
{
    struct queue q;
    struct engine_ticket *t;
    struct err err = {0}, lost;
    queue_init(&q, 1, 8);
    t = new_ticket(&q, 1);
    CHECK_INT(queue_health(&q, &err), 0);
    queue_drain(&q);
    CHECK_INT(submit(&q, t), ERR_DRAINING);
    err_set(&lost, ERR_IO, "the cable is out");
    queue_fail(&q, 0, &lost);
    CHECK_INT(queue_submit(&q, t, &err), ERR_DEVICE); /* the reason counts, not that it drains as well */
    CHECK_STR(err.text, "the cable is out");
    CHECK_INT(queue_health(&q, &err), ERR_IO);
    CHECK_STR(err.text, "the cable is out");
    CHECK_INT(queue_health(&q, NULL), ERR_IO);
    CHECK_INT(q.dev[0].inbox.n, 0);
    ticket_free(t);
    queue_done(&q);
}

/* Tickets arrive in their order behind what is there; each order is given once, but `clear`, which stands until it was carried out. */
static void test_take(void)
{
    struct queue q;
    struct engine_ticket *a, *b;
    struct seq_list into = {0};
    queue_init(&q, 1, 8);
    a = new_ticket(&q, 2);
    b = new_ticket(&q, 2);
    CHECK_INT(submit(&q, a), 0);
    struct queue_orders o = queue_take(&q, 0, &into, true); /* does not wait: there is something */
    CHECK(!o.stop && !o.sweep && !o.clear);
    CHECK_INT(submit(&q, b), 0);
    queue_cancel(&q, a);
    CHECK(atomic_load(&a->cancelled) && !atomic_load(&b->cancelled));
    o = queue_take(&q, 0, &into, true);
    CHECK(o.sweep && !o.stop && !o.clear);
    CHECK(!queue_take(&q, 0, &into, false).sweep);
    const struct sequence *want[] = {&a->seqs[0], &a->seqs[1], &b->seqs[0], &b->seqs[1]};
    const struct sequence *s = into.head;
    for (int i = 0; i < 4; i++, s = s->next)
        if (!CHECK(s == want[i]))
            break;
    CHECK_INT(into.n, 4);
    CHECK(into.tail == want[3]);
    CHECK_INT(q.dev[0].inbox.n, 0);
    queue_stop(&q);
    CHECK(queue_take(&q, 0, &into, true).stop);
    ticket_free(a);
    ticket_free(b);
    queue_done(&q);
}

/* Sequences end one by one; a ticket is done with its last. */
static void test_deliver(void)
{
    struct queue q;
    struct engine_ticket *t;
    struct seq_list taken = {0};
    struct engine_stats counts = {.requests_done = 1}, seen;
    queue_init(&q, 1, 8);
    n_done = 0;
    t = new_ticket(&q, 4);
    CHECK_INT(submit(&q, t), 0);
    queue_take(&q, 0, &taken, false);
    struct queue_delivery d = {.started = 2, .ended_waiting = 1};
    seq_list_push(&d.done, &t->seqs[0]);
    queue_deliver(&q, 0, &d, &counts);
    check_counts(&q, 1, 2);
    CHECK(!d.done.n && !d.started && !d.ended_waiting);
    CHECK(!queue_wait(&q, t, 0) && !queue_wait(&q, t, 1));
    CHECK_INT(n_done, 1);
    d = (struct queue_delivery){.started = 1, .ended_running = 3};
    for (int i = 1; i < 4; i++)
        seq_list_push(&d.done, &t->seqs[i]);
    counts.requests_done = 4;
    queue_deliver(&q, 0, &d, &counts);
    check_counts(&q, 0, 0);
    CHECK(queue_wait(&q, t, 0) && queue_wait(&q, t, 1) && queue_wait(&q, t, -1));
    queue_stats(&q, &seen);
    CHECK_INT(seen.requests_done, 4);
    CHECK_INT(n_done, 2);
    ticket_free(t);
    queue_done(&q);
}

/* ---- threads ------------------------------------------------------------------------------------------------------ */
struct waiter {
    struct queue *q;
    struct engine_ticket *t;
    struct engine_stats seen;
};

static void *wait_and_count(void *arg)
{
    struct waiter *w = arg;
    CHECK(queue_wait(w->q, w->t, -1));
    queue_stats(w->q, &w->seen);
    return NULL;
}

/* Who wakes with an answer finds it counted. */
static void test_counts_before_wake(void)
{
    struct queue q;
    struct engine_ticket *t;
    struct seq_list taken = {0};
    queue_init(&q, 1, 8);
    t = new_ticket(&q, 1);
    CHECK_INT(submit(&q, t), 0);
    queue_take(&q, 0, &taken, false);
    struct waiter w[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        w[i] = (struct waiter){.q = &q, .t = t};
        CHECK_INT(pthread_create(&threads[i], NULL, wait_and_count, &w[i]), 0);
    }
    struct queue_delivery d = {.ended_waiting = 1};
    seq_list_push(&d.done, &t->seqs[0]);
    queue_deliver(&q, 0, &d, &(struct engine_stats){.requests_done = 7});
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(w[i].seen.requests_done, 7);
        CHECK_INT(w[i].seen.queued, 0);
    }
    ticket_free(t);
    queue_done(&q);
}

static void *clear(void *q)
{
    queue_clear_cache(q);
    return NULL;
}

/* Waits until n calls have asked for a clear cache. */
static void wait_for_asks(struct queue *q, uint64_t n)
{
    for (bool asked = false; !asked; sched_yield()) {
        pthread_mutex_lock(&q->lock);
        asked = q->clears_asked == n;
        pthread_mutex_unlock(&q->lock);
    }
}

/* Who asked for a clear cache returns when one was cleared that was begun after that, or when the worker stops. */
static void test_clear(void)
{
    struct queue q;
    struct seq_list into = {0};
    pthread_t first, second;
    struct queue_delivery told = {.cleared = true}, nothing = {0};
    const struct engine_stats counts = {0};
    queue_init(&q, 1, 8);
    CHECK_INT(pthread_create(&first, NULL, clear, &q), 0);
    CHECK(queue_take(&q, 0, &into, true).clear); /* sleeps until it is asked */
    CHECK(!queue_take(&q, 0, &into, false).clear);
    CHECK_INT(pthread_create(&second, NULL, clear, &q), 0);
    wait_for_asks(&q, 2); /* too late for the one that was taken */
    queue_deliver(&q, 0, &nothing, &counts);
    CHECK_INT(q.dev[0].clears_done, 0);
    queue_deliver(&q, 0, &told, &counts);
    pthread_join(first, NULL);
    CHECK_INT(q.dev[0].clears_done, 1);
    CHECK(queue_take(&q, 0, &into, true).clear);
    queue_stop(&q);
    pthread_join(second, NULL);
    CHECK_INT(q.dev[0].clears_done, 1);
    queue_done(&q);
}

static void *submit_later(void *t)
{
    CHECK_INT(submit(((struct engine_ticket *)t)->queue, t), 0);
    return NULL;
}

static void *cancel_later(void *t)
{
    queue_cancel(((struct engine_ticket *)t)->queue, t);
    return NULL;
}

static void *stop_later(void *t)
{
    queue_stop(((struct engine_ticket *)t)->queue);
    return NULL;
}

/* An idle worker wakes for each thing that can be asked of it. */
static void test_wake(void)
{
    static void *(*const asks[])(void *) = {submit_later, cancel_later, stop_later};
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
        struct queue q;
        struct engine_ticket *t;
        struct seq_list into = {0};
        pthread_t thread;
        queue_init(&q, 1, 8);
        t = new_ticket(&q, 1);
        CHECK_INT(pthread_create(&thread, NULL, asks[i], t), 0);
        struct queue_orders o = queue_take(&q, 0, &into, true);
        CHECK(into.n == (i == 0) && o.sweep == (i == 1) && o.stop == (i == 2));
        pthread_join(thread, NULL);
        ticket_free(t);
        queue_done(&q);
    }
}

int main(void)
{
    test_limits();
    test_refusals();
    test_take();
    test_deliver();
    test_counts_before_wake();
    test_clear();
    test_wake();
    return check_result();
}
