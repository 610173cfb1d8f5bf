/* Counting results and telling tickets. */
#include "engine/schedule/finish.h"

static void count_result(struct engine_stats *c, const struct sequence *s)
{
    if (s->result.code == ERR_CANCELLED)
        c->requests_cancelled++;
    else if (s->result.code < 0)
        c->requests_failed++;
    else
        c->requests_done++;
    if (s->result.code >= 0) {
        c->tokens_scored += (uint64_t)s->result.n_scored;
        c->tokens_generated += (uint64_t)s->n_new;
        c->rows_cached += (uint64_t)s->n_cached;
    }
}

void finish_publish(struct scheduler *s)
{
    s->counts.kv_rows_held = (uint64_t)s->tree.held_slots;
    s->counts.kv_rows_reserved = 0;
    for (struct sequence *q = s->running.head; q; q = q->next)
        s->counts.kv_rows_reserved += (uint64_t)q->promised;
    s->counts.tree_nodes = s->tree.n_linked;
    s->counts.tree_tokens = s->tree.tokens;
    s->counts.evicted_tokens = s->tree.evicted_tokens;
    s->published = s->counts;
}

/* Counts a finished sequence and tells its ticket; the sequence is in no list any more. */
static void hand_over(struct scheduler *s, struct sequence *q)
{
    struct engine_ticket *t = q->ticket;
    count_result(&s->counts, q);
    if (q->req->on_done)
        q->req->on_done(q->req->user);
    pthread_mutex_lock(&s->lock);
    finish_publish(s); /* a client that has its answer finds it counted, its rows included */
    if (!--t->remaining)
        pthread_cond_broadcast(&t->done);
    pthread_mutex_unlock(&s->lock);
}

static void finish(struct scheduler *s, struct seq_list *l, int *counted, struct sequence *q, int code, const struct err *err)
{
    seq_list_remove(l, q);
    pthread_mutex_lock(&s->lock);
    --*counted;
    pthread_mutex_unlock(&s->lock);
    if (!q->done)
        sequence_finish(q, &s->env, code, err);
    hand_over(s, q);
}

void finish_queued(struct scheduler *s, struct seq_list *l, struct sequence *q, int code, const struct err *err)
{
    finish(s, l, &s->n_queued, q, code, err);
}

void finish_running(struct scheduler *s, struct sequence *q, int code, const struct err *err)
{
    finish(s, &s->running, &s->n_running, q, code, err);
}

static int cancelled(struct err *err)
{
    return err_set(err, ERR_CANCELLED, "the request was cancelled");
}

void finish_collected(struct scheduler *s, struct sequence *q)
{
    struct err err;
    if (q->done || q->result.finish != FINISH_NONE || !sequence_due(q))
        finish_running(s, q, 0, NULL);
    else if (atomic_load(&q->ticket->cancelled))
        finish_running(s, q, cancelled(&err), &err);
}

static void finish_list(struct scheduler *s, struct seq_list *l, bool all, int code, const struct err *err)
{
    for (struct sequence *q = l->head, *next; q; q = next) {
        next = q->next;
        if (!all && (q->in_flight || !atomic_load(&q->ticket->cancelled)))
            continue;
        if (l == &s->running)
            finish_running(s, q, code, err);
        else
            finish_queued(s, l, q, code, err);
    }
}

static void finish_lists(struct scheduler *s, bool all, int code, const struct err *err)
{
    finish_list(s, &s->running, all, code, err);
    finish_list(s, &s->ready, all, code, err);
    finish_list(s, &s->fifo, all, code, err);
}

void finish_cancelled(struct scheduler *s)
{
    struct err err;
    finish_lists(s, false, cancelled(&err), &err);
}

void finish_all(struct scheduler *s, int code, const char *text)
{
    struct err err;
    err_set(&err, code, "%s", text);
    finish_lists(s, true, code, &err);
}
