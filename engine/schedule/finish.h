/* How sequences end: they leave their list, are counted, and their ticket is told. Used by the worker thread only. */
#pragma once
#include "engine/schedule/scheduler.h"

/* What engine_stats shows from now on; the lock is held. */
void finish_publish(struct scheduler *s);

/* A sequence of `ready` or `fifo`, or of `running` and not in flight. code: 0, or why it failed; a sequence that is done already keeps its result.
 * Its ticket may be gone afterwards. */
void finish_queued(struct scheduler *s, struct seq_list *l, struct sequence *q, int code, const struct err *err);
void finish_running(struct scheduler *s, struct sequence *q, int code, const struct err *err);
/* A running sequence whose step has been collected: ends it if it has all it wanted, failed, or is cancelled. */
void finish_collected(struct scheduler *s, struct sequence *q);

/* Those of cancelled tickets; the ones in flight end when they are collected. */
void finish_cancelled(struct scheduler *s);
/* Every sequence; none may be in flight. */
void finish_all(struct scheduler *s, int code, const char *text);
