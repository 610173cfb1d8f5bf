/* Who takes turns. A *flow* is what a client's sequences wait and run in; a client has one for all its requests of usual size and one for each
 * large call, so that a small request of a client does not wait for its large one. Requests of clients that hold nothing else have a flow of
 * their own, which has no client: policy.h says what it is promised. */
#pragma once
#include "engine/schedule/seq_list.h"

struct client;

/* The first member of what stands in a ring. */
struct link {
    struct link *prev, *next;
};

/* What a ticket is to the policy (policy.h). */
enum lane { LANE_ALONE, LANE_SHARED, LANE_BULK, LANES };

/* Sequences with rows due, by what they are due for. */
enum due_kind { DUE_TOKEN, DUE_SHORT, DUE_LONG, DUE_KINDS };

struct flow {
    struct link link; /* in its client's ring, while it has sequences */
    struct client *client;
    enum lane lane;
    uint64_t call;           /* LANE_BULK: whose tickets are in it; 0: one ticket's */
    int n;                   /* sequences in the three lists */
    struct seq_list waiting; /* as submitted */
    struct seq_list ready;   /* windows in prefix order */
    struct seq_list running; /* admitted */
    uint64_t starved;        /* launches + 1 when it had nothing running and no room for the first time since; 0: it is not so */
    /* of one admission round */
    int64_t due, short_due; /* rows that its running sequences could compute */
    struct sequence *at;    /* to be tried next; NULL: the next window's first */
    bool tried_all;
    int n_may_join; /* sequences that wait for rows which are not in flight yet */
    /* of one division */
    struct sequence *next[DUE_KINDS]; /* from where on to look for rows due */
    bool longs_turn;                  /* of an odd row */
};

struct client {
    struct link link; /* in the ring of clients, while it has flows in its own */
    struct client *hash_next;
    uint64_t id;
    int n; /* sequences, in whatever flow */
    int n_flows;
    struct link *flows; /* ring: the one whose turn it is */
    struct flow shared;
};

/* Adds a link to a ring as the last whose turn comes. *ring: NULL if empty. */
static inline void link_add(struct link **ring, struct link *l)
{
    if (!*ring) {
        *ring = l->prev = l->next = l;
        return;
    }
    l->next = *ring;
    l->prev = (*ring)->prev;
    l->prev->next = l->next->prev = l;
}

static inline void link_remove(struct link **ring, struct link *l)
{
    if (*ring == l)
        *ring = l->next == l ? NULL : l->next;
    l->prev->next = l->next;
    l->next->prev = l->prev;
}
