/* Windows of the queue in prefix order, room in the KV pool, and shares of a step. */
#include "engine/admission.h"
#include <stdlib.h>
#include "engine/finish.h"

static int by_tokens(const void *a, const void *b)
{
    const struct eval_request *x = (*(struct sequence *const *)a)->req, *y = (*(struct sequence *const *)b)->req;
    int n = x->n_tokens < y->n_tokens ? x->n_tokens : y->n_tokens;
    for (int i = 0; i < n; i++)
        if (x->tokens[i] != y->tokens[i])
            return x->tokens[i] < y->tokens[i] ? -1 : 1;
    return (x->n_tokens > y->n_tokens) - (x->n_tokens < y->n_tokens);
}

/* Moves the next window of the queue, in prefix order, to the end of `ready`. */
static bool refill_ready(struct scheduler *s)
{
    int n = 0;
    while (n < WINDOW && s->fifo.n) {
        s->order[n] = s->fifo.head;
        seq_list_remove(&s->fifo, s->order[n++]);
    }
    qsort(s->order, (size_t)n, sizeof(*s->order), by_tokens);
    for (int i = 0; i < n; i++)
        seq_list_push(&s->ready, s->order[i]);
    return n > 0;
}

/* A sequence that was admitted runs, unless the tree had all of it. */
static void start_running(struct scheduler *s, struct sequence *q)
{
    seq_list_remove(&s->ready, q);
    pthread_mutex_lock(&s->lock);
    s->n_queued--;
    s->n_running++;
    pthread_mutex_unlock(&s->lock);
    seq_list_push(&s->running, q);
    if (!sequence_due(q))
        finish_running(s, q, 0, NULL);
}

/* KV slots set aside for running sequences, less those that steps in flight have taken. */
static int64_t slots_promised(const struct scheduler *s)
{
    int64_t n = 0;
    for (const struct sequence *q = s->running.head; q; q = q->next)
        n += q->promised;
    for (int i = 0; i < s->max_flights; i++)
        n -= flight_slots(&s->flights[i]);
    return n;
}

int64_t admission_run(struct scheduler *s)
{
    int64_t due = 0, promised = slots_promised(s);
    for (const struct sequence *q = s->running.head; q; q = q->next)
        due += sequence_due(q);
    for (struct sequence *q = s->ready.head, *next; due < s->max_rows && s->running.n < s->max_rows; q = next) {
        if (!q) {
            struct sequence *last = s->ready.tail;
            if (!refill_ready(s))
                break;
            q = last ? last->next : s->ready.head;
        }
        next = q->next;
        enum admission a = sequence_admit(q, &s->env, promised);
        if (a == ADMIT_WAIT_ROOM)
            break;
        if (a == ADMIT_DONE) {
            due += sequence_due(q);
            promised += q->promised;
            start_running(s, q);
        } else if (a == ADMIT_FAILED) {
            finish_queued(s, &s->ready, q, 0, NULL);
        }
    }
    return due;
}

int admission_divide(struct scheduler *s)
{
    int n = 0, left = s->max_rows;
    bool others = s->running.n > 1 || s->ready.n || s->fifo.n;
    int cap = others && left > 1 ? left / 2 : left;
    for (struct sequence *q = s->running.head; q && left; q = q->next) {   /* one row for every generating sequence */
        int due = sequence_due(q);
        if (!due)
            continue;
        s->grants[n++] = (struct grant){q, q->n_new ? 1 : 0, due};
        left -= s->grants[n - 1].n;
    }
    for (int i = 0; i < n && left; i++) {
        struct grant *g = &s->grants[i];
        int more = g->due < cap ? g->due - g->n : cap - g->n;
        more = more < left ? more : left;
        g->n += more;
        left -= more;
    }
    for (int i = 0; i < n && left; i++) {   /* nobody else can use what is left */
        struct grant *g = &s->grants[i];
        int more = g->due - g->n < left ? g->due - g->n : left;
        g->n += more;
        left -= more;
    }
    return n;
}
