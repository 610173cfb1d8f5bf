/* One step of the engine in two halves: launch packs granted rows and issues everything that the device does with them; collect waits for that
 * and takes in what came back. Another step may be launched in between, of sequences that are not in flight. */
#pragma once
#include "engine/schedule/scheduler.h"

/* On an error the device has failed (err may not say how); the flight is then busy and must be dropped. */
int step_launch(struct scheduler *s, struct flight *f, const struct grant *grants, int n, struct err *err);
/* Steps are collected in the order in which they were launched. Afterwards the flight is free, its sequences are no longer in flight, and those
 * that failed by themselves are finished with their own error. On an error the device has failed and nothing was taken in. */
int step_collect(struct scheduler *s, struct flight *f, struct err *err);
/* Seconds on a clock that never goes back. */
double step_clock(void);
/* Forgets a launched step whose device is idle or lost. */
void step_drop(struct scheduler *s, struct flight *f);
