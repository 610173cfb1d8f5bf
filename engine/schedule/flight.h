/* What belongs to one step between its launch and the taking in of its results: the host fills it before, the device writes to it meanwhile.
 * Activations are not among it, since the device runs one step after another and each reads back its results before the next begins. */
#pragma once
#include "engine/model/logprobs.h"
#include "engine/schedule/sequence.h"

#define STEPS_IN_FLIGHT_MAX 2 /* one computes, one waits behind it: more would not make the device busier */

struct flight {
    struct kern_ctx *k;
    int id;          /* its mark in the backend's queue; 0 .. STEPS_IN_FLIGHT_MAX - 1 */
    uint64_t number; /* of the step it carries, counted from 1; 0: it is free */
    bool overlapped; /* another step was in flight when it was launched */
    struct batch batch;
    struct step_run *runs, *wants; /* [max_rows] parallel to the batch's runs and wanted rows */
    unsigned char *route;          /* [n_layers, n_rows] enum decision; alloc_host memory */
    struct scores scores;
};

int flight_init(struct flight *f, const struct model *m, int id, int max_rows, struct err *err);
void flight_done(struct flight *f); /* copes with half-built and with a zeroed struct */

/* KV slots that a step in flight has taken: one for each row it appends, in every layer. */
static inline int flight_slots(const struct flight *f)
{
    return f->number ? f->batch.n_append * f->batch.n_layers : 0;
}
