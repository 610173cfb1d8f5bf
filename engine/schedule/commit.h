/* Takes in what a step computed: each appended row's decisions and KV slots go to its sequence and to the prefix tree, each wanted row's score to its
 * sequence. A device hands out a layer's reserved slots in row order; the host replays that order from the decisions. */
#pragma once
#include "engine/engine.h"
#include "engine/schedule/sequence.h"

#define COMMIT_ROWS 32 /* rows read at a time: a layer's decisions and slots lie side by side, and the block stays in the cache */

/* Scratch of one worker. */
struct commit {
    uint8_t *bits; /* [COMMIT_ROWS, bits->n_bytes] of a block of rows */
    int *slots;    /* of the block, row by row, and within a row by ascending layer */
    int *taken;    /* [n_layers] how many reserved slots the rows so far took */
};

int commit_init(struct commit *c, const struct route_bits *b, struct err *err);
void commit_done(struct commit *c); /* copes with half-built and with a zeroed struct */

/* All rows and scores of a step whose results are here; slots that it did not use go back. Counts into `counts`. A sequence that fails is finished
 * with its own error. */
void commit_step(struct commit *c, const struct sequence_env *e, const struct step *step, struct engine_stats *counts);
