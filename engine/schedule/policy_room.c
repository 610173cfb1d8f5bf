/* Room in the KV pool: what is kept for small requests, what is set aside for generations, and who makes way. */
#include "engine/schedule/policy.h"
#include "engine/schedule/ticket.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows of small requests in the device's hands: three quarters of a step in each step in flight and in the one being packed. One sequence of full
 * length fits beside them, and no more than a quarter of a pool is kept. */
struct policy_reserve policy_reserve(const struct executor_limits *l)
{
    int64_t longest = (int64_t)l->max_positions * l->n_layers;
    int64_t rows = (int64_t)(l->max_steps + 1) * (3 * ((int64_t)l->max_rows + 3) / 4), wanted = rows * l->n_layers;
    struct policy_reserve r = {.slots = smaller(wanted, smaller(l->n_kv_slots - longest, l->n_kv_slots / 4)),
                               .entries = smaller(wanted, smaller(l->n_table_entries - longest, l->n_table_entries / 4)),
                               .states = (int)smaller(l->n_state_slots / 8, l->max_rows)};
    r.slots = r.slots > 0 ? r.slots : 0;
    r.entries = r.entries > 0 ? r.entries : 0;
    return r;
}

int64_t policy_promised(const struct policy *p)
{
    int64_t n = 0;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (const struct sequence *q = f->running.head; q; q = q->next)
            n += q->promised;
    return n;
}

/* ---- preemption ----------------------------------------------------------------------------------------------------- */
void policy_preempt(struct policy *p, const struct sequence_env *e, struct sequence *s)
{
    struct flow *f = s->place->flow;
    int due = policy_due(p, s);
    p->due -= due;
    f->due -= due;
    f->short_due -= due > p->max_rows / 2 ? 0 : due;
    sequence_preempt(s, e);
    seq_list_remove(&f->running, s);
    if (f->ready.head)
        f->ready.head->lcp = 0;
    s->lcp = 0;
    seq_list_push_front(&f->ready, s);
    s->where = SEQUENCE_READY;
    p->n_running--;
    p->n_preempted++;
    p->preempted++;
}

/* KV slots that a flow's running sequences hold or were promised, about. */
static int64_t held_by(const struct flow *f, int64_t layers)
{
    int64_t n = 0;
    for (const struct sequence *q = f->running.head; q; q = q->next)
        n += q->n_kv * layers + q->promised;
    return n;
}

/* The newest that may make way for another flow. */
static struct sequence *victim_of(const struct policy *p, const struct flow *f)
{
    struct sequence *newest = NULL;
    for (struct sequence *q = f->running.head; q; q = q->next) {
        uint64_t safe = (uint64_t)POLICY_PATIENCE << (q->n_preempted < 32 ? q->n_preempted : 32);
        if (!sequence_away(q) && !q->done && p->launches - q->admitted_at >= safe && (!newest || q->admitted > newest->admitted))
            newest = q;
    }
    return newest;
}

bool policy_preempt_for(struct policy *p, const struct sequence_env *e, const struct flow *f)
{
    struct sequence *victim = NULL;
    int64_t most = 0;
    for (struct flow *o = clients_next_flow(&p->clients, NULL); o; o = clients_next_flow(&p->clients, o)) {
        int64_t held = o == f || o->lane == LANE_ALONE ? 0 : held_by(o, e->bits->n_layers);
        struct sequence *v = held > most ? victim_of(p, o) : NULL;
        if (!v)
            continue;
        most = held;
        victim = v;
    }
    if (victim)
        policy_preempt(p, e, victim);
    return victim;
}

/* ---- generations that go on ------------------------------------------------------------------------------------------ */
/* Rows that it cannot do without: those that it may append now, or the one in flight and the one behind it. */
static int64_t needs(const struct sequence *s)
{
    return sequence_appends(s) + (s->n_flights && sequence_goes_on(s));
}

static bool runs_out(const struct sequence *s, int64_t layers)
{
    return s->req->max_new && !s->done && !sequence_away(s) && needs(s) * layers > s->promised;
}

/* Slots for the rows due and `ahead` more, or at least for those due. Returns the room that is left. */
static int64_t set_aside(struct sequence *s, int64_t layers, int ahead, int64_t room)
{
    int64_t due = needs(s), rows = smaller(due + ahead, s->table_cap - s->n_kv), had = s->promised;
    if (rows * layers - had > room)
        rows = due;
    if (rows * layers - had > room)
        return room;
    s->promised = rows * layers;
    return room - (s->promised - had);
}

/* Sets aside for all that run out. *ret_oldest: the oldest for which there was no room; NULL: none. */
static int64_t set_aside_all(struct policy *p, int64_t layers, int64_t room, struct sequence **ret_oldest)
{
    *ret_oldest = NULL;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (struct sequence *q = f->running.head; q; q = q->next) {
            if (!runs_out(q, layers))
                continue;
            int64_t kept = f->lane == LANE_ALONE ? 0 : p->reserve;
            room = set_aside(q, layers, p->ahead, room - kept) + kept;
            if (runs_out(q, layers) && (!*ret_oldest || q->admitted < (*ret_oldest)->admitted))
                *ret_oldest = q;
        }
    return room;
}

/* The newest generation that is not in flight; NULL: there is none, or nothing else runs that could have to wait for it. */
static struct sequence *newest_generation(const struct policy *p)
{
    struct sequence *newest = NULL;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f))
        for (struct sequence *q = f->running.head; q; q = q->next)
            if (q->req->max_new && !sequence_away(q) && !q->done && (!newest || q->admitted > newest->admitted))
                newest = q;
    return p->n_running > 1 ? newest : NULL;
}

int64_t policy_grow(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight)
{
    for (;;) {
        struct sequence *starved, *victim;
        int64_t room = tree_available(e->tree) - (policy_promised(p) - slots_in_flight);
        room = set_aside_all(p, e->bits->n_layers, room, &starved);
        if (!starved || !(victim = newest_generation(p)))
            return tree_available(e->tree) - room;
        policy_preempt(p, e, victim);
    }
}
