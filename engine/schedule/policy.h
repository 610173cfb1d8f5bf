/* Who runs next: takes queued sequences in, and divides a step among those that have rows due. Used by the worker thread only.
 *
 * Every generating sequence gets its row in each step; prompts share the others. New sequences are admitted oldest window first and in prefix order
 * inside a window, so that siblings meet in the tree. A long sequence (more than half a step due) is admitted only while those that run do not fill a
 * step; the others pass it in the queue and share its steps, of which long ones get at least half. So a short request waits for the step under way
 * and its own, not for long ones before it. Admission sets aside KV slots for all rows to come, so what runs can always finish. */
#pragma once
#include "engine/schedule/seq_list.h"

#define POLICY_WINDOW 1024 /* sequences sorted into prefix order at a time */

struct grant {
    struct sequence *seq;
    int n;   /* rows of the next step */
    int due; /* rows that it could use */
};

struct policy {
    int max_rows;
    struct seq_list fifo;    /* as submitted */
    struct seq_list ready;   /* windows in prefix order */
    struct seq_list running; /* admitted */
    struct sequence **order; /* [POLICY_WINDOW] scratch for sorting */
    struct grant *grants;    /* [max_rows] of the latest policy_divide */
    bool prompts_last;       /* policy_divide_whole: the latest step was of prompts */
};

/* What an admission round led to. */
struct policy_round {
    int64_t due;              /* rows that the running sequences could compute now */
    struct seq_list complete; /* taken out of the queue because nothing is left to compute, or because they failed */
    int started;              /* now in `running` */
    int code;                 /* 0, or why the executor failed: the device is lost */
};

int policy_init(struct policy *p, int max_rows, struct err *err);
void policy_done(struct policy *p); /* copes with half-built and with a zeroed struct */

/* Admits queued sequences until the rows that could run fill a step. slots_in_flight: KV slots that launched steps have taken. */
struct policy_round policy_admit(struct policy *p, const struct sequence_env *e, int64_t slots_in_flight);
/* Fills p->grants: one row for every generating sequence, then prompts, at least half of the rest for long ones if there are any. Returns how many. */
int policy_divide(struct policy *p);
/* The same where a prompt must be one run of one step: prompts that fit whole, in the order of their admission, or one row for every generating
 * sequence; the two take turns. */
int policy_divide_whole(struct policy *p);
/* Will there be more to run once the steps in flight are collected, even if no request comes? */
bool policy_more_to_come(const struct policy *p);
/* KV slots set aside for running sequences. */
int64_t policy_promised(const struct policy *p);
static inline bool policy_idle(const struct policy *p)
{
    return !p->running.n && !p->ready.n && !p->fifo.n;
}
