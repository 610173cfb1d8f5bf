/* One step of the engine: pack granted rows, run the model on them, and commit what came back. */
#pragma once
#include "engine/scheduler.h"

struct grant {
    struct sequence *seq;
    int n;      /* rows of this step */
    int due;    /* rows that it could use */
};

/* Sequences that fail by themselves are finished with their own error; a negative return means that the device failed. */
int step_run(struct scheduler *s, const struct grant *grants, int n, struct err *err);
