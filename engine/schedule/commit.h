/* Takes in what a step computed: each appended row's routing bits and KV slots go to its sequence and to the prefix tree, each wanted row's
 * score to its sequence. The device hands out a layer's reserved slots in row order; the host replays that order from the bits. */
#pragma once
#include "engine/schedule/flight.h"

struct scheduler;

#define COMMIT_ROWS 32 /* rows read at a time: a layer's bits and slots lie side by side, and the block stays in the cache */

/* Scratch of one worker. */
struct commit {
    uint8_t *dense; /* [route_bytes] bits of the layers without a router */
    uint8_t *bits;  /* [COMMIT_ROWS, route_bytes] of a block of rows */
    int *slots;     /* of the block, row by row, and within a row by ascending layer */
    int *taken;     /* [n_layers] how many reserved slots the rows so far took */
};

int commit_init(struct commit *c, const struct model *m, const struct prefix_tree *t, struct err *err);
void commit_done(struct commit *c); /* copes with half-built */

/* All rows and scores of a step whose results are here; slots that it did not use go back. A sequence that fails is finished with its own error. */
void commit_step(struct scheduler *s, struct flight *f);
