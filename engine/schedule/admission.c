/* Windows of the queue in prefix order, room in the KV pool, and shares of a step. */
#include "engine/schedule/admission.h"
#include "engine/schedule/finish.h"
#include <stdlib.h>

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

/* A sequence that could fill more than half a step by itself. */
static bool is_long(const struct scheduler *s, int rows)
{
    return rows > s->max_rows / 2;
}

/* Rows that the running sequences could compute: all, and those of sequences that are not long. */
struct load {
    int64_t rows, short_rows;
};

static void load_add(struct load *l, const struct scheduler *s, const struct sequence *q)
{
    int due = sequence_due(q);
    l->rows += due;
    l->short_rows += is_long(s, due) ? 0 : due;
}

static bool fills_step(const struct scheduler *s, const struct load *l)
{
    return l->rows >= s->max_rows;
}

/* Half of a step that long sequences fill is for others. */
static bool takes_more(const struct scheduler *s, const struct load *l)
{
    return (!fills_step(s, l) || l->short_rows < s->max_rows / 2) && s->running.n < s->max_rows;
}

int64_t admission_run(struct scheduler *s)
{
    struct load load = {0};
    int64_t promised = slots_promised(s);
    for (const struct sequence *q = s->running.head; q; q = q->next)
        load_add(&load, s, q);
    for (struct sequence *q = s->ready.head, *next; takes_more(s, &load); q = next) {
        if (!q) {
            struct sequence *last = s->ready.tail;
            if (!refill_ready(s))
                break;
            q = last ? last->next : s->ready.head;
        }
        next = q->next;
        if (fills_step(s, &load) && is_long(s, q->req->n_tokens))
            continue;
        enum admission a = sequence_admit(q, &s->env, promised);
        if (a == ADMIT_WAIT_ROOM)
            break;
        if (a == ADMIT_DONE) {
            load_add(&load, s, q);
            promised += q->promised;
            start_running(s, q);
        } else if (a == ADMIT_FAILED) {
            finish_queued(s, &s->ready, q, 0, NULL);
        }
    }
    return load.rows;
}

/* Gives the grants of long sequences, or of the others, rows until only `kept` are left of the step. */
static int divide_among(struct scheduler *s, int n, bool long_ones, int left, int kept)
{
    for (int i = 0; i < n && left > kept; i++) {
        struct grant *g = &s->grants[i];
        int more = g->due - g->n < left - kept ? g->due - g->n : left - kept;
        if (is_long(s, g->due) != long_ones)
            continue;
        g->n += more;
        left -= more;
    }
    return left;
}

int admission_divide(struct scheduler *s)
{
    int n = 0, left = s->max_rows;
    bool has_long = false;
    for (struct sequence *q = s->running.head; q && left; q = q->next) { /* one row for every generating sequence */
        int due = sequence_due(q);
        if (!due)
            continue;
        s->grants[n++] = (struct grant){q, q->n_new ? 1 : 0, due};
        left -= s->grants[n - 1].n;
        has_long |= is_long(s, due);
    }
    left = divide_among(s, n, false, left, has_long ? left / 2 : 0);
    divide_among(s, n, true, left, 0);
    return n;
}
