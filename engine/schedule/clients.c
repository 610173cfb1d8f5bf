/* A hash of clients, and flows handed out from a pool. */
#include "engine/schedule/clients.h"
#include "engine/schedule/ticket.h"
#include <stdlib.h>
#include <string.h>

#define BUCKETS (2 * CLIENTS_MAX)
#define TURN_STEPS 4  /* a ticket of more steps' rows is a large call: it takes turns of its own */
#define CALLS_SEEN 64 /* flows of a client that are looked at for one of the same call */

static void init_client(struct client *c)
{
    c->shared = (struct flow){.client = c, .lane = LANE_SHARED};
}

int clients_init(struct clients *c)
{
    *c = (struct clients){.alone = {.lane = LANE_ALONE}};
    c->all = calloc(CLIENTS_MAX, sizeof(*c->all));
    c->calls = calloc(CLIENTS_CALLS, sizeof(*c->calls));
    c->buckets = calloc(BUCKETS, sizeof(*c->buckets));
    if (!c->all || !c->calls || !c->buckets) {
        clients_done(c);
        return ERR_NOMEM;
    }
    init_client(&c->crowd);
    for (int i = CLIENTS_MAX - 1; i >= 0; i--) {
        init_client(&c->all[i]);
        c->all[i].hash_next = c->free;
        c->free = &c->all[i];
    }
    for (int i = CLIENTS_CALLS - 1; i >= 0; i--) {
        c->calls[i].link.next = c->free_calls;
        c->free_calls = &c->calls[i].link;
    }
    return 0;
}

void clients_done(struct clients *c)
{
    free(c->all);
    free(c->calls);
    free(c->buckets);
    memset(c, 0, sizeof(*c));
}

/* ---- clients by id ---------------------------------------------------------------------------------------------- */
static struct client **bucket_of(const struct clients *c, uint64_t id)
{
    return &c->buckets[(id * 0x9e3779b97f4a7c15u >> 40) % BUCKETS];
}

static struct client *find_client(struct clients *c, uint64_t id)
{
    struct client **bucket = bucket_of(c, id), *k = *bucket;
    while (k && k->id != id)
        k = k->hash_next;
    if (k)
        return k;
    if (!c->free)
        return &c->crowd;
    k = c->free;
    c->free = k->hash_next;
    k->id = id;
    k->hash_next = *bucket;
    *bucket = k;
    return k;
}

static void forget_client(struct clients *c, struct client *k)
{
    if (k == &c->crowd)
        return;
    struct client **at = bucket_of(c, k->id);
    while (*at != k)
        at = &(*at)->hash_next;
    *at = k->hash_next;
    k->hash_next = c->free;
    c->free = k;
}

/* ---- flows ---------------------------------------------------------------------------------------------------------- */
static struct flow *find_call(struct client *k, uint64_t call)
{
    struct link *l = k->flows;
    for (int i = 0; call && l && i < CALLS_SEEN && i < k->n_flows; i++, l = l->next) {
        struct flow *f = (struct flow *)l;
        if (f->lane == LANE_BULK && f->call == call)
            return f;
    }
    return NULL;
}

static struct flow *call_flow(struct clients *c, struct client *k, uint64_t call)
{
    struct flow *f = find_call(k, call);
    if (f || !c->free_calls)
        return f ? f : &k->shared;
    f = (struct flow *)c->free_calls;
    c->free_calls = f->link.next;
    *f = (struct flow){.client = k, .lane = LANE_BULK, .call = call};
    return f;
}

void clients_place(struct clients *c, const struct engine_ticket *t, struct ticket_place *p, int max_rows)
{
    struct client *k = p->client = find_client(c, t->client_id);
    if (!k->n && k != &c->crowd && t->rows <= max_rows / 4)
        p->flow = &c->alone;
    else if (t->rows <= (int64_t)TURN_STEPS * max_rows)
        p->flow = &k->shared;
    else
        p->flow = call_flow(c, k, t->call);
    p->lane = p->flow->lane;
}

static void open_flow(struct clients *c, struct flow *f)
{
    struct client *k = f->client;
    if (!k->n_flows++) {
        link_add(&c->ring, &k->link);
        c->n++;
    }
    link_add(&k->flows, &f->link);
}

static void close_flow(struct clients *c, struct flow *f)
{
    struct client *k = f->client;
    link_remove(&k->flows, &f->link);
    f->starved = 0;
    if (!--k->n_flows) {
        link_remove(&c->ring, &k->link);
        c->n--;
    }
    if (f->lane == LANE_BULK) {
        f->link.next = c->free_calls;
        c->free_calls = &f->link;
    }
}

void clients_enter(struct clients *c, struct sequence *s)
{
    struct ticket_place *p = s->place;
    struct flow *f = p->flow;
    c->n_sequences++;
    p->n++;
    p->client->n++;
    if (!f->n++ && f->client)
        open_flow(c, f);
}

void clients_leave(struct clients *c, struct sequence *s)
{
    struct ticket_place *p = s->place;
    c->n_sequences--;
    if (!--p->flow->n && p->flow->client)
        close_flow(c, p->flow);
    if (!--p->client->n)
        forget_client(c, p->client);
    if (!--p->n) { /* others of the ticket may be moved here when another has these */
        p->flow = NULL;
        p->client = NULL;
    }
}

struct flow *clients_next_flow(const struct clients *c, struct flow *f)
{
    if (f == &c->alone)
        return NULL;
    struct client *k = f ? f->client : (struct client *)c->ring;
    if (f && f->link.next != k->flows)
        return (struct flow *)f->link.next;
    if (f)
        k = k->link.next == c->ring ? NULL : (struct client *)k->link.next;
    return k ? (struct flow *)k->flows : (struct flow *)&c->alone;
}
