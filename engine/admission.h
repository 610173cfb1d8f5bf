/* Who runs next: takes queued sequences in, and divides a step among those that have rows due. Used by the worker thread only.
 *
 * Of long sequences (more than half a step due) one is admitted at a time. It gets half of every step and what the others leave; the others pass long
 * ones in the queue. So a short request waits for the step under way and its own, not for long ones before it, and those go on at half speed at least. */
#pragma once
#include "engine/scheduler.h"

/* Admits queued sequences until the rows that could run fill a step. Returns how many rows could run now. */
int64_t admission_run(struct scheduler *s);
/* Fills s->grants: one row for every generating sequence, then prompts, at least half of the rest
 * for long ones if there are any. Returns how many grants. */
int admission_divide(struct scheduler *s);
