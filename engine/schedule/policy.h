/* Who runs next: takes queued sequences in, and divides a step among those that have rows due. Used by the worker thread only.
 *
 * Clients take turns in rows of a step, a quarter of a step at a time; the flows of a client (flow.h) take its turns in turn. What some do not use the
 * others get. In its turn a flow gives every generating sequence its row, then half of what is left to prompts of at most half a step and half to
 * longer ones. New sequences of a flow are admitted oldest window first and in prefix order inside a window, so that siblings meet in the tree. A flow
 * admits as long as what it has due does not fill its share of a step, and all together as long as they do not fill a step. A sequence that waits for
 * a prefix that another one computes, or for room, is passed; if the prefix runs in the next step, it may join that when it is launched (policy_join).
 *
 * Room. Admission sets aside KV slots for the rows of the prompt and for POLICY_AHEAD generated tokens, and a generation sets aside more as it goes on.
 * If there is none, the newest generation is preempted: it leaves the tree and the device, keeps its tokens, goes back to the head of its flow and
 * runs its rows again when there is room, with the same bits, since no row's bits depend on what runs with it. The oldest is never preempted for want
 * of room, so what runs can always finish. A flow that has nothing running and finds no room in POLICY_PATIENCE steps has the newest sequence of the
 * flow that holds most preempted; who was preempted k times is safe for POLICY_PATIENCE << k steps, so that each gets to its end.
 *
 * The promise to small requests. A ticket of at most a quarter of a step's rows, of a client that holds nothing else, waits in a flow of its own, first
 * in, first out. Up to half of every step is its sequences', and KV slots, table entries and places for router states are kept for them. So: with C
 * clients that hold one such request each, each of these starts within 2 + ceil(their rows / half a step) steps, whatever others do. Proof: nobody else
 * enters the flow twice, since a client must hold nothing to enter it; so at most the rows of the C requests, each once, are before a sequence of it.
 * A step launched while it waits either has half a step of rows of the flow that come before it, or has admitted all of the flow that need not
 * wait for a prefix, and has its row. Of the former there are at most ceil(their rows / half a step), itself included. One more step may have been under
 * way when the request came. One more is lost if its next row is one that another sequence computes: after that it does not wait, but computes that
 * row itself. Room is there because the flow admits at most three quarters of a step's rows more in a step, and what it admits of a scoring request is
 * done in the step after, so what is kept for it (policy_reserve) is never used up. */
#pragma once
#include "engine/schedule/clients.h"

#define POLICY_WINDOW 1024 /* sequences sorted into prefix order at a time */
#define POLICY_AHEAD 64    /* generated tokens that KV slots are set aside for at a time */
#define POLICY_PATIENCE 8  /* steps */

struct grant {
    struct sequence *seq;
    int n;   /* rows of the next step */
    int due; /* rows that it could use */
};

struct policy {
    int max_rows;
    int layers; /* KV slots that an appended row may take */
    struct clients clients;
    int n_running;
    int64_t due;             /* rows that the running sequences could compute now, as the latest round left it */
    int64_t promised;        /* KV slots set aside beyond the steps in flight, likewise */
    int ahead;               /* POLICY_AHEAD, unless a test sets another */
    int64_t reserve;         /* KV slots kept for small requests */
    int state_reserve;       /* places for router states likewise */
    uint64_t launches;       /* divisions so far */
    uint64_t n_admitted;     /* sequences so far */
    uint64_t n_preempted;    /* likewise */
    uint64_t n_looks;        /* sequences that admission looked at so far */
    int preempted;           /* of them, since the latest round was reported */
    struct sequence **order; /* [POLICY_WINDOW] scratch for sorting */
    struct grant *grants;    /* [max_rows] of the latest policy_divide */
    int n_grants;
    uint64_t n_rounds; /* of admission so far */
    bool blocked;      /* the latest round found sequences that wait for what others compute in the steps in flight */
    bool no_room;      /* it found sequences that wait for room */
    bool prompts_last; /* policy_divide_whole: the latest step was of prompts */
};

/* What an admission round led to. */
struct policy_round {
    struct seq_list complete; /* taken out of the queue because nothing is left to compute, or because they failed */
    int started;              /* now running, less those that were preempted */
    int code;                 /* 0, or why the executor failed: the device is lost */
};

int policy_init(struct policy *p, int max_rows, int layers, struct err *err);
void policy_done(struct policy *p); /* copes with half-built and with a zeroed struct */
/* Sequences that were submitted; `from` is empty afterwards. */
void policy_arrive(struct policy *p, struct seq_list *from);
/* Takes a sequence out that waits or runs, for good. */
void policy_remove(struct policy *p, struct sequence *s);
/* The first sequence that is there, or the next one: those that run and those that wait, in no order that means anything. */
struct sequence *policy_next(const struct policy *p, struct sequence *s);

/* ---- policy_admit.c ---------------------------------------------------------------------------------------------- */
/* Admits queued sequences until the rows that could run fill a step. slots_in_flight: KV slots that launched steps have taken. */
struct policy_round policy_admit(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight);

/* Right before a step is divided: where all that is due fits into it, sequences are admitted that wait for a prefix which runs in that step, as
 * far as their rows fit too. They run in the same step behind it (sequence_join), so what the division grants them is packed last. */
struct policy_round policy_join(struct policy *p, const struct sequence_env *e);

/* ---- policy_room.c ----------------------------------------------------------------------------------------------- */
/* KV slots, table entries and places for router states that are kept for small requests. */
struct policy_reserve {
    int64_t slots, entries;
    int states;
};
struct policy_reserve policy_reserve(const struct executor_limits *l);
/* KV slots set aside for running sequences. */
int64_t policy_promised(const struct policy *p);
/* Sets aside more for generations that run out; preempts where there is no room. Returns what is promised beyond the steps in flight. */
int64_t policy_grow(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight);
/* A running sequence that is not in flight and not done waits again, at the head of its flow. */
void policy_preempt(struct policy *p, const struct sequence_env *e, struct sequence *s);
/* Preempts a sequence for a flow that has waited long. False: there is none. */
bool policy_preempt_for(struct policy *p, const struct sequence_env *e, const struct flow *f);

/* ---- policy_divide.c --------------------------------------------------------------------------------------------- */
/* Fills p->grants. Returns how many. */
int policy_divide(struct policy *p);
/* The same where a prompt must be one run of one step: prompts that fit whole, in the order of their admission, or rows of generating sequences;
 * the two take turns. */
int policy_divide_whole(struct policy *p);

/* Rows that a running sequence could compute now: those due for which KV slots are set aside, beside what is in flight. */
static inline int policy_due(const struct policy *p, const struct sequence *s)
{
    int due = sequence_due(s), appends = due - s->n_rerun_left;
    int64_t room = s->promised / p->layers - (s->n_flights ? s->n_appending : 0);
    return appends > room ? s->n_rerun_left + (int)room : due;
}
/* Has a running sequence rows due that are no drawn token's? */
bool policy_due_undrawn(const struct policy *p);
/* Will there be more to run once the steps in flight are collected, even if no request comes? Where rows follow, what waits for room is not asked: the
 * steps that it waits for go on. */
bool policy_more_to_come(const struct policy *p);
static inline bool policy_idle(const struct policy *p)
{
    return !p->clients.n_sequences;
}
