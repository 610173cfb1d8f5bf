/* Admission: windows in prefix order, who is tried, who is passed. */
#include "engine/schedule/policy.h"
#include "engine/schedule/ticket.h"
#include <stdlib.h>

#define TRIES 8192      /* sequences that one round looks at */
#define READY_MAX 4096  /* sequences of a flow in windows, of which those at the front may wait for a prefix */
#define ROOM_TRIES 16   /* sequences of a flow that a round finds no room for before it looks at other flows */
#define JOIN_MISSES 16  /* sequences of a flow that cannot join after all before other flows are asked */
#define PASSED_STEPS 64 /* a sequence that waits for room is passed by others of its flow for so long */

/* ---- windows --------------------------------------------------------------------------------------------------------- */
static int by_tokens(const void *a, const void *b)
{
    const struct eval_request *x = (*(struct sequence *const *)a)->req, *y = (*(struct sequence *const *)b)->req;
    int n = x->n_tokens < y->n_tokens ? x->n_tokens : y->n_tokens;
    for (int i = 0; i < n; i++)
        if (x->tokens[i] != y->tokens[i])
            return x->tokens[i] < y->tokens[i] ? -1 : 1;
    return (x->n_tokens > y->n_tokens) - (x->n_tokens < y->n_tokens);
}

static int shared_prefix(const struct eval_request *x, const struct eval_request *y)
{
    int n = x->n_tokens < y->n_tokens ? x->n_tokens : y->n_tokens, i = 0;
    while (i < n && x->tokens[i] == y->tokens[i])
        i++;
    return i;
}

/* Moves the next window to the end of `ready`: in prefix order, but for lone requests, which keep theirs. False: nothing waits. */
static bool refill_ready(struct policy *p, struct flow *f)
{
    int n = 0;
    while (n < POLICY_WINDOW && f->waiting.n) {
        p->order[n] = f->waiting.head;
        seq_list_remove(&f->waiting, p->order[n++]);
    }
    if (f->lane != LANE_ALONE)
        qsort(p->order, (size_t)n, sizeof(*p->order), by_tokens);
    for (int i = 0; i < n; i++) {
        struct sequence *s = p->order[i];
        s->lcp = i ? shared_prefix(p->order[i - 1]->req, s->req) : 0;
        s->where = SEQUENCE_READY;
        seq_list_push(&f->ready, s);
    }
    return n > 0;
}

/* ---- one flow ---------------------------------------------------------------------------------------------------------- */
struct admission_round {
    struct policy *p;
    const struct sequence_env *e;
    struct policy_round result;
    int64_t promised; /* KV slots, beyond the steps in flight */
    int tries;
};

static bool is_long(const struct policy *p, int rows)
{
    return rows > p->max_rows / 2;
}

static void count_due(struct policy *p, struct flow *f, const struct sequence *s)
{
    int due = policy_due(p, s);
    f->due += due;
    f->short_due += is_long(p, due) ? 0 : due;
    p->due += due;
}

/* The sequence to be tried next. NULL: there is none, or enough were looked at. */
static struct sequence *next_to_try(struct admission_round *r, struct flow *f)
{
    if (r->tries <= 0 || f->tried_all)
        return NULL;
    if (!f->at) {
        struct sequence *last = f->ready.tail;
        if (f->ready.n < READY_MAX && refill_ready(r->p, f))
            f->at = last ? last->next : f->ready.head;
    }
    f->tried_all = !f->at;
    r->tries -= f->at != NULL;
    r->p->n_looks += f->at != NULL;
    return f->at;
}

/* One that was admitted runs, unless the tree had all of it or it failed. */
static void leave_ready(struct admission_round *r, struct flow *f, struct sequence *s)
{
    struct policy *p = r->p;
    if (s->done || !sequence_due(s)) {
        policy_remove(p, s);
        seq_list_push(&r->result.complete, s);
        return;
    }
    if (s->next && s->next->lcp > s->lcp)
        s->next->lcp = s->lcp;
    seq_list_remove(&f->ready, s);
    seq_list_push(&f->running, s);
    s->where = SEQUENCE_RUNNING;
    s->admitted = ++p->n_admitted;
    s->admitted_at = p->launches;
    p->n_running++;
    f->starved = 0;
    r->result.started++;
    r->promised += s->promised;
    count_due(p, f, s);
}

/* A lone request that has not begun waits for another's rows for one step only. */
static bool may_wait(const struct policy *p, struct sequence *s, const struct sequence *owner)
{
    const struct ticket_place *at = s->place;
    if (at->lane != LANE_ALONE || at->began_at || owner->ticket == s->ticket)
        return true;
    if (!s->passed)
        s->passed = p->launches + 1;
    return s->passed == p->launches + 1;
}

static struct admission_terms terms_for(const struct admission_round *r, const struct sequence *s)
{
    const struct policy *p = r->p;
    bool lone = s->place->lane == LANE_ALONE;
    return (struct admission_terms){.promised = r->promised + (lone ? 0 : p->reserve),
                                    .states_kept = lone ? 0 : p->state_reserve,
                                    .ahead = p->ahead << (s->n_preempted < 10 ? s->n_preempted : 10),
                                    .lone = lone};
}

static void note_may_join(const struct policy *p, struct sequence *s)
{
    s->may_join = p->n_rounds;
    s->place->flow->n_may_join++;
}

static enum admission try(struct admission_round *r, struct sequence *s)
{
    const struct sequence *owner = NULL;
    struct admission_terms terms = terms_for(r, s);
    enum admission a = sequence_admit(s, r->e, &terms, &owner);
    if (a == ADMIT_WAIT_PREFIX && !may_wait(r->p, s, owner)) {
        terms.by_itself = true;
        a = sequence_admit(s, r->e, &terms, &owner);
    }
    bool joins = a == ADMIT_WAIT_PREFIX && r->e->x->limits.branches && !owner->n_flights;
    r->p->blocked |= a == ADMIT_WAIT_PREFIX && !joins;
    r->p->no_room |= a == ADMIT_WAIT_ROOM;
    if (joins)
        note_may_join(r->p, s);
    return a;
}

/* The flow has nothing running and finds no room: others make way after a while. */
static bool starves(struct admission_round *r, struct flow *f)
{
    struct policy *p = r->p;
    if (f->running.n)
        return false;
    if (!f->starved)
        f->starved = p->launches + 1;
    if (p->launches + 1 - f->starved < POLICY_PATIENCE)
        return false;
    int64_t before = policy_promised(p);
    bool made = policy_preempt_for(p, r->e, f);
    r->promised -= before - policy_promised(p);
    return made;
}

/* Has it waited for room for so long that the others of its flow must stop passing it? */
static bool waits_long(const struct policy *p, struct sequence *s)
{
    if (!s->no_room)
        s->no_room = p->launches + 1;
    return p->launches + 1 - s->no_room > PASSED_STEPS;
}

/* Goes on with the flow until `quota` of its rows are due; half of a quota that long sequences fill is for others. Negative: the device is lost. */
static int admit_flow(struct admission_round *r, struct flow *f, int64_t quota)
{
    struct policy *p = r->p;
    struct sequence *s;
    int no_room = 0, blocked = -1; /* so many computed tokens lie before what the one before waits for */
    bool joins = false;            /* and it may join that */
    while ((f->due < quota || f->short_due < quota / 2) && f->running.n < p->max_rows && (s = next_to_try(r, f))) {
        f->at = s->next;
        blocked = s->lcp > blocked ? blocked : -1;
        bool waits = blocked >= 0 && s->n_prompt_rows > blocked && f->client;
        if (waits && joins)
            note_may_join(p, s);
        if (waits || (f->due >= quota && is_long(p, s->req->n_tokens)))
            continue;
        enum admission a = try(r, s);
        while (a == ADMIT_WAIT_ROOM && starves(r, f))
            a = try(r, s);
        blocked = a == ADMIT_WAIT_PREFIX ? s->blocked_at : -1;
        joins = s->may_join == p->n_rounds;
        if (a == ADMIT_WAIT_ROOM && (++no_room == ROOM_TRIES || waits_long(p, s)))
            f->tried_all = true;
        if (a == ADMIT_WAIT_PREFIX || a == ADMIT_WAIT_ROOM)
            continue;
        if (a == ADMIT_LOST)
            return r->result.code = ERR_DEVICE;
        leave_ready(r, f, s);
    }
    return 0;
}

/* ---- all ------------------------------------------------------------------------------------------------------------------ */
static void begin_round(struct admission_round *r)
{
    struct policy *p = r->p;
    p->due = 0;
    p->blocked = p->no_room = false;
    p->n_rounds++;
    for (struct flow *f = clients_next_flow(&p->clients, NULL); f; f = clients_next_flow(&p->clients, f)) {
        f->due = f->short_due = 0;
        for (const struct sequence *s = f->running.head; s; s = s->next)
            count_due(p, f, s);
        f->at = f->ready.head;
        f->tried_all = false;
        f->n_may_join = 0;
    }
}

/* Every flow up to its share of a step. */
static int admit_shares(struct admission_round *r)
{
    struct clients *c = &r->p->clients;
    int64_t rows = r->p->max_rows, clients = c->n;
    int code = admit_flow(r, &c->alone, (rows + 1) / 2);
    for (struct flow *f = clients_next_flow(c, NULL), *next; f && f->client && code >= 0; f = next) {
        int64_t share = (rows + clients - 1) / clients + rows / 4, flows = f->client->n_flows; /* turns do not end where steps do */
        share = share < rows ? share : rows;
        next = clients_next_flow(c, f);
        code = admit_flow(r, f, (share + flows - 1) / flows);
    }
    return code;
}

/* What is left of the step, in turn. */
static void admit_rest(struct admission_round *r)
{
    int64_t rows = r->p->max_rows;
    int code = 0;
    for (struct flow *f = clients_next_flow(&r->p->clients, NULL), *next; f && code >= 0; f = next) {
        int64_t others = r->p->due - f->due;
        next = clients_next_flow(&r->p->clients, f);
        if (others < rows)
            code = admit_flow(r, f, rows - others);
    }
}

struct policy_round policy_admit(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight)
{
    struct admission_round r = {.p = p, .e = e, .tries = TRIES};
    r.promised = policy_grow(p, e, slots_in_flight);
    begin_round(&r);
    if (admit_shares(&r) >= 0)
        admit_rest(&r);
    r.result.started -= p->preempted;
    p->preempted = 0;
    p->promised = r.promised;
    return r.result;
}

/* Negative: the device is lost. */
static int join_flow(struct admission_round *r, struct flow *f)
{
    struct policy *p = r->p;
    int misses = 0;
    for (struct sequence *s = f->ready.head, *next; s && f->n_may_join && p->due < p->max_rows && f->running.n < p->max_rows; s = next) {
        next = s->next;
        if (s->may_join != p->n_rounds)
            continue;
        struct admission_terms terms = terms_for(r, s);
        enum admission a = sequence_join(s, r->e, &terms, p->max_rows - p->due);
        f->n_may_join--;
        if (a == ADMIT_LOST)
            return r->result.code = ERR_DEVICE;
        if (a == ADMIT_DONE || a == ADMIT_FAILED)
            leave_ready(r, f, s);
        else if (++misses == JOIN_MISSES)
            break;
    }
    return 0;
}

struct policy_round policy_join(struct policy *p, const struct sequence_env *e)
{
    struct admission_round r = {.p = p, .e = e, .promised = p->promised};
    int code = 0;
    for (struct flow *f = clients_next_flow(&p->clients, NULL), *next; f && code >= 0; f = next) {
        next = clients_next_flow(&p->clients, f);
        code = join_flow(&r, f);
    }
    return r.result;
}
