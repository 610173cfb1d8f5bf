/* What is there: arrival, removal, walks. */
#include "engine/schedule/policy.h"
#include "engine/schedule/ticket.h"
#include <stdlib.h>
#include <string.h>

int policy_init(struct policy *p, int max_rows, int layers, struct err *err)
{
    *p = (struct policy){.max_rows = max_rows, .layers = layers, .ahead = POLICY_AHEAD};
    p->order = malloc(POLICY_WINDOW * sizeof(*p->order));
    p->grants = malloc((size_t)max_rows * sizeof(*p->grants));
    if (clients_init(&p->clients) >= 0 && p->order && p->grants)
        return 0;
    return err_set(err, ERR_NOMEM, "no memory for the scheduler");
}

void policy_done(struct policy *p)
{
    clients_done(&p->clients);
    free(p->order);
    free(p->grants);
    memset(p, 0, sizeof(*p));
}

void policy_arrive(struct policy *p, struct seq_list *from)
{
    while (from->n) {
        struct sequence *s = from->head;
        seq_list_remove(from, s);
        if (!s->place->flow)
            clients_place(&p->clients, s->ticket, s->place, p->max_rows);
        clients_enter(&p->clients, s);
        seq_list_push(&s->place->flow->waiting, s);
        s->where = SEQUENCE_WAITING;
    }
}

void policy_remove(struct policy *p, struct sequence *s)
{
    struct flow *f = s->place->flow;
    if (s->where == SEQUENCE_READY && s->next && s->next->lcp > s->lcp)
        s->next->lcp = s->lcp;
    seq_list_remove(s->where == SEQUENCE_WAITING ? &f->waiting : s->where == SEQUENCE_READY ? &f->ready : &f->running, s);
    p->n_running -= s->where == SEQUENCE_RUNNING;
    s->where = SEQUENCE_ELSEWHERE;
    clients_leave(&p->clients, s);
}

static struct sequence *first_of(const struct flow *f)
{
    return f->running.head ? f->running.head : f->ready.head ? f->ready.head : f->waiting.head;
}

struct sequence *policy_next(const struct policy *p, struct sequence *s)
{
    struct flow *f = s ? s->place->flow : NULL;
    if (s && s->next)
        return s->next;
    if (s && s->where == SEQUENCE_RUNNING && (f->ready.n || f->waiting.n))
        return f->ready.n ? f->ready.head : f->waiting.head;
    if (s && s->where == SEQUENCE_READY && f->waiting.n)
        return f->waiting.head;
    while ((f = clients_next_flow(&p->clients, f)))
        if (f->n)
            return first_of(f);
    return NULL;
}

bool policy_due_undrawn(const struct policy *p)
{
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (const struct sequence *q = f->running.head; q; q = q->next)
            if (policy_due(p, q) && !(q->n_new && sequence_draws(q)))
                return true;
    return false;
}

bool policy_more_to_come(const struct policy *p)
{
    bool following = false;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (const struct sequence *q = f->running.head; q; q = q->next) {
            bool due = q->n_flights && policy_due(p, q);
            if (q->n_flights && !due && sequence_goes_on(q))
                return true;
            following |= due;
        }
    return p->blocked || (p->no_room && !following);
}
