/* All that sequences work on, as a worker has it, around a fake executor; and steps of chosen sequences, one at a time. For tests of policy, sequence
 * and commit. */
#pragma once
#include "engine/schedule/commit.h"
#include "engine/schedule/ticket.h"
#include "tests/unit/fake_executor.h"

#define RIG_POSITIONS 64 /* of one sequence */

struct rig {
    struct fake_executor *x;
    struct slots kv, states;
    struct extents tables;
    struct route_bits bits;
    struct tree tree;
    struct commit commit;
    struct sequence_env env;
    struct step step;
    struct engine_stats counts;
    struct engine_ticket ticket; /* of all sequences */
    int table_host[FAKE_LAYERS * RIG_POSITIONS];
};

/* Twice as many table entries as slots, so that slots run out first. n_state_slots 0: without router states; else copies are kept every 8 positions. False: no memory. */
bool rig_open(struct rig *r, int max_rows, int n_kv_slots, int n_state_slots);
/* Checks that nothing is left behind once the tree is cleared, and frees everything. */
void rig_close(struct rig *r);

/* A sequence of the rig; the request is borrowed. If it has a `user`, that is a struct expect_watch. */
void rig_prepare(struct rig *r, struct sequence *s, const struct eval_request *q);
/* promised: KV slots set aside for others. */
enum admission rig_admit(struct rig *r, struct sequence *s, int64_t promised);
/* The step gets n more rows of s. */
void rig_pack(struct rig *r, struct sequence *s, int n);
/* Computes the packed step; its results are in r->step.results, nothing is committed. */
bool rig_compute(struct rig *r);
/* Computes and commits it, and empties it. */
void rig_run(struct rig *r);
/* Admits a sequence, runs it in steps of at most n rows, and finishes it. */
void rig_complete(struct rig *r, struct sequence *s, int n);
/* Prepares, runs and releases a sequence, and compares its result with what is expected. Returns the rows that were run. */
int rig_answer(struct rig *r, const struct eval_request *q, int n);
