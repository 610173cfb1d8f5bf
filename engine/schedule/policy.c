/* Windows of the queue in prefix order, room in the KV pool, and shares of a step. */
#include "engine/schedule/policy.h"
#include <stdlib.h>
#include <string.h>

int policy_init(struct policy *p, int max_rows, struct err *err)
{
    *p = (struct policy){.max_rows = max_rows};
    p->order = malloc(POLICY_WINDOW * sizeof(*p->order));
    p->grants = malloc((size_t)max_rows * sizeof(*p->grants));
    return p->order && p->grants ? 0 : err_set(err, ERR_NOMEM, "no memory for the scheduler");
}

void policy_done(struct policy *p)
{
    free(p->order);
    free(p->grants);
    memset(p, 0, sizeof(*p));
}

/* ---- admission ---------------------------------------------------------------------------------------------- */
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
static bool refill_ready(struct policy *p)
{
    int n = 0;
    while (n < POLICY_WINDOW && p->fifo.n) {
        p->order[n] = p->fifo.head;
        seq_list_remove(&p->fifo, p->order[n++]);
    }
    qsort(p->order, (size_t)n, sizeof(*p->order), by_tokens);
    for (int i = 0; i < n; i++)
        seq_list_push(&p->ready, p->order[i]);
    return n > 0;
}

int64_t policy_promised(const struct policy *p)
{
    int64_t n = 0;
    for (const struct sequence *q = p->running.head; q; q = q->next)
        n += q->promised;
    return n;
}

/* A sequence that could fill more than half a step by itself. */
static bool is_long(const struct policy *p, int rows)
{
    return rows > p->max_rows / 2;
}

/* Rows that the running sequences could compute: all, and those of sequences that are not long. */
struct load {
    int64_t rows, short_rows;
};

static void load_add(struct load *l, const struct policy *p, const struct sequence *q)
{
    int due = sequence_due(q);
    l->rows += due;
    l->short_rows += is_long(p, due) ? 0 : due;
}

static bool fills_step(const struct policy *p, const struct load *l)
{
    return l->rows >= p->max_rows;
}

/* Half of a step that long sequences fill is for others. */
static bool takes_more(const struct policy *p, const struct load *l)
{
    return (!fills_step(p, l) || l->short_rows < p->max_rows / 2) && p->running.n < p->max_rows;
}

/* The first of `ready` after `last` (NULL: from the start), which may have to be filled first. NULL: nothing waits. */
static struct sequence *next_ready(struct policy *p, struct sequence *q)
{
    if (q)
        return q;
    struct sequence *last = p->ready.tail;
    if (!refill_ready(p))
        return NULL;
    return last ? last->next : p->ready.head;
}

/* A sequence that was admitted runs, unless the tree had all of it or it failed. */
static void leave_queue(struct policy *p, struct sequence *q, struct policy_round *round)
{
    seq_list_remove(&p->ready, q);
    if (q->done || !sequence_due(q)) {
        seq_list_push(&round->complete, q);
        return;
    }
    seq_list_push(&p->running, q);
    round->started++;
}

struct policy_round policy_admit(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight)
{
    struct policy_round round = {0};
    struct load load = {0};
    int64_t promised = policy_promised(p) - slots_in_flight;
    for (const struct sequence *q = p->running.head; q; q = q->next)
        load_add(&load, p, q);
    for (struct sequence *q = p->ready.head, *next; takes_more(p, &load) && (q = next_ready(p, q)); q = next) {
        next = q->next;
        if (fills_step(p, &load) && is_long(p, q->req->n_tokens))
            continue;
        enum admission a = sequence_admit(q, e, promised);
        if (a == ADMIT_WAIT_ROOM)
            break;
        if (a == ADMIT_WAIT_PREFIX)
            continue;
        load_add(&load, p, q);
        promised += q->promised;
        leave_queue(p, q, &round);
        if (a == ADMIT_LOST) {
            round.code = q->result.code;
            break;
        }
    }
    round.due = load.rows;
    return round;
}

bool policy_more_to_come(const struct policy *p)
{
    bool more = p->ready.n || p->fifo.n;
    for (const struct sequence *q = p->running.head; q && !more; q = q->next)
        more = q->in_flight && sequence_goes_on(q);
    return more;
}

/* ---- shares of a step --------------------------------------------------------------------------------------- */
/* Gives the grants of long sequences, or of the others, rows until only `kept` are left of the step. */
static int divide_among(struct policy *p, int n, bool long_ones, int left, int kept)
{
    for (int i = 0; i < n && left > kept; i++) {
        struct grant *g = &p->grants[i];
        int more = g->due - g->n < left - kept ? g->due - g->n : left - kept;
        if (is_long(p, g->due) != long_ones)
            continue;
        g->n += more;
        left -= more;
    }
    return left;
}

/* Gives whole prompts their rows, or every generating sequence one. Returns how many grants. */
static int divide_whole(struct policy *p, bool prompts)
{
    int n = 0, left = p->max_rows;
    for (struct sequence *q = p->running.head; q && left; q = q->next) {
        int due = sequence_due(q);
        if (!due || due > left || (q->n_new == 0) != prompts)
            continue;
        p->grants[n++] = (struct grant){q, due, due};
        left -= due;
    }
    return n;
}

int policy_divide_whole(struct policy *p)
{
    bool prompts = !p->prompts_last;
    int n = divide_whole(p, prompts);
    if (!n)
        n = divide_whole(p, prompts = !prompts);
    p->prompts_last = prompts;
    return n;
}

int policy_divide(struct policy *p)
{
    int n = 0, left = p->max_rows;
    bool has_long = false;
    for (struct sequence *q = p->running.head; q && left; q = q->next) { /* one row for every generating sequence */
        int due = sequence_due(q);
        if (!due)
            continue;
        p->grants[n++] = (struct grant){q, q->n_new ? 1 : 0, due};
        left -= p->grants[n - 1].n;
        has_long |= is_long(p, due);
    }
    left = divide_among(p, n, false, left, has_long ? left / 2 : 0);
    divide_among(p, n, true, left, 0);
    return n;
}
