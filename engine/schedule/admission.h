/* Who runs next: takes queued sequences in, and divides a step among those that have rows due. Used by the worker thread only.
 *
 * A long sequence (more than half a step due) is admitted only while those that run do not fill a step; the others pass it in the queue and share
 * its steps, of which long ones get at least half. So a short request waits for the step under way and its own, not for long ones before it. */
#pragma once
#include "engine/schedule/scheduler.h"

/* Admits queued sequences until the rows that could run fill a step. Returns how many rows could run now. */
int64_t admission_run(struct scheduler *s);
/* Fills s->grants: one row for every generating sequence, then prompts, at least half of the rest
 * for long ones if there are any. Returns how many grants. */
int admission_divide(struct scheduler *s);
