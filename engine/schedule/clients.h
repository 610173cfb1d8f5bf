/* The clients that hold sequences, by their ids, and their flows. How many are told apart is bounded: who comes when CLIENTS_MAX others hold sequences
 * shares a turn with all who do so, and large calls beyond CLIENTS_CALLS share their clients' flows. Nothing is allocated after clients_init.
 * Used by the worker thread only. */
#pragma once
#include "engine/schedule/flow.h"

#define CLIENTS_MAX 4096
#define CLIENTS_CALLS 4096

struct engine_ticket;
struct ticket_place;

struct clients {
    struct client *all; /* [CLIENTS_MAX] */
    struct flow *calls; /* [CLIENTS_CALLS] */
    struct client *free, **buckets;
    struct link *free_calls;
    struct client crowd; /* those beyond CLIENTS_MAX */
    struct flow alone;   /* LANE_ALONE */
    struct link *ring;   /* of clients that have flows: the one whose turn it is */
    int n;               /* in the ring */
    int n_sequences;
};

int clients_init(struct clients *c);  /* 0 or ERR_NOMEM */
void clients_done(struct clients *c); /* copes with half-built and with a zeroed struct */

/* Finds a place for a ticket of which no sequence is here: p->client and p->flow. max_rows: of a step. */
void clients_place(struct clients *c, const struct engine_ticket *t, struct ticket_place *p, int max_rows);
/* Counts a sequence in, which the caller puts into a list of its place's flow; or out, and forgets a flow and a client that hold no other. */
void clients_enter(struct clients *c, struct sequence *s);
void clients_leave(struct clients *c, struct sequence *s);

/* The flows of all clients, then that of lone requests; NULL: there are no more. f: the one before; NULL: the first. */
struct flow *clients_next_flow(const struct clients *c, struct flow *f);
