/* Who runs next: takes queued sequences in, and divides a step among those that have rows due. Used by the worker thread only. */
#pragma once
#include "engine/scheduler.h"

/* Admits queued sequences until the rows that could run fill a step. Returns how many rows could run now. */
int64_t admission_run(struct scheduler *s);
/* Fills s->grants: one row for every generating sequence, then prompts, each at most half a step while others wait. Returns how many grants. */
int admission_divide(struct scheduler *s);
