/* A step as the worker sees it: rows to compute, and whose they are. */
#pragma once
#include "engine/model/step_rows.h"
#include "engine/schedule/executor.h"

struct sequence;

/* A run of a step belongs to a sequence, and so does a wanted row. seq NULL: it was dropped, and is nobody's. */
struct step_owner {
    struct sequence *seq;
    int pos; /* of the run's first row, or of the wanted row */
};

struct step {
    int id;          /* its number for the executor */
    uint64_t number; /* counted from 1 in the order of launches; 0: it is free */
    bool overlapped; /* another step was in flight when it was launched */
    int n_dropped;   /* runs, of one appended row each */
    struct step_rows rows;
    /* [max_rows] parallel to the rows' runs, wanted rows and saves; a save's pos is the position whose states it keeps */
    struct step_owner *runs, *wants, *saves;
    struct step_results results; /* once the executor has waited for it */
};

int step_init(struct step *s, int id, const struct executor_limits *l, struct err *err);
void step_done(struct step *s); /* copes with half-built and with a zeroed struct */
