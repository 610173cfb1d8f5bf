/* One request on its way through the engine: which of its rows are in the tree, which must run, and what came out.
 *
 * Rows are positions 0 .. : row p predicts token p+1. Rows whose K and V the tree has are run again only where a score is missing ("rerun":
 * queries over the cached keys, appending nothing); the others are computed in order ("append").
 * Used by the worker thread only, but for sequence_prepare. */
#pragma once
#include "engine/engine.h"
#include "engine/memory/prefix_tree.h"
#include "engine/model/batch.h"
#include "engine/model/logprobs.h"
#include <stdatomic.h>

struct sequence {
    struct sequence *prev, *next; /* in one of the scheduler's lists */
    struct engine_ticket *ticket;
    const struct eval_request *req;
    struct eval_result result;
    struct sampler_params sampler;
    int k1; /* alternatives kept: max(1, req->top_k) */
    bool done;
    bool in_flight;  /* a step with rows of it has been launched and not yet collected */
    int n_appending; /* rows that the step in flight appends */
    /* outputs, one allocation (`block`) */
    void *block;
    float *logprobs, *top_logprobs, *new_logprobs, *new_top_logprobs;
    int32_t *top_ids, *new_tokens, *new_top_ids;
    int *rows_routed;
    uint8_t *routing;
    /* while it runs */
    struct tree_path path;
    int64_t table_off;
    int table_cap;               /* positions that may be computed */
    int64_t promised;            /* KV slots set aside for rows still to come */
    int n_prompt_rows;           /* rows of the prompt that must be computed */
    int n_kv;                    /* positions computed, 0 .. n_kv-1 */
    int n_cached;                /* of them, taken from the tree */
    int n_rerun_left, rerun_pos; /* rows to run again, and the position from which on to look for them */
    int rows_run;
    int n_new;
    atomic_int n_shown;          /* of them, those that other threads may read */
    atomic_bool stopped;         /* set by other threads: the next token is the last */
    int *kv_count, *rerun_count; /* [n_layers] keys before position n_kv, and before rerun_pos */
    uint8_t *route;              /* [table_cap, route_bytes] */
    uint8_t *need;               /* [n_prompt_rows] the row's logits are wanted and not in the tree */
};

/* The engine's state that a sequence works on. */
struct sequence_env {
    const struct model *m;
    struct prefix_tree *tree;
    struct kv_cache *kv;
    int *table_host; /* [n_layers * max_model_len] scratch for building slot tables */
};

/* A run of a step belongs to a sequence, and so does a wanted row. */
struct step_run {
    struct sequence *seq;
    int pos;
};

/* What sequence_prepare, and the routing that a request wants, take beside the struct. */
size_t sequence_bytes(const struct eval_request *req, const struct model *m);
/* Allocates the outputs; -1 = ERR_NOMEM. Any thread. */
int sequence_prepare(struct sequence *s, const struct eval_request *req, const struct model *m, struct engine_ticket *ticket);
void sequence_release(struct sequence *s); /* frees the outputs */

enum admission { ADMIT_DONE, ADMIT_WAIT_PREFIX, ADMIT_WAIT_ROOM, ADMIT_FAILED };
/* Enters the tree, takes what it has, reserves slots (promised: sum over the running sequences) and a slot table.
 * ADMIT_FAILED: s->result holds the error. */
enum admission sequence_admit(struct sequence *s, const struct sequence_env *e, int64_t promised);

/* Rows that can run now; 0: the sequence has all it needs, or what it needs next depends on a step in flight. */
int sequence_due(const struct sequence *s);
/* Does a sequence in flight need more rows than those under way? */
bool sequence_goes_on(const struct sequence *s);
/* Adds n <= sequence_due rows to the batch, with which the sequence is in flight; runs[] and wants[] are parallel to the batch's runs and wanted rows. */
void sequence_pack(struct sequence *s, const struct sequence_env *e, struct batch *b, int n, struct step_run *runs, struct step_run *wants);

/* The next n appended rows came back: routing bits [n, route_bytes], and their slots as tree_append takes them; the caller adds to kv_count.
 * Returns how many rows were kept; where that is fewer than n memory is short, and the slots of the others remain the caller's. */
int sequence_commit_rows(struct sequence *s, const struct sequence_env *e, int n, const uint8_t *route, const int *slots);
/* Wanted row i of the scores: a prompt token's score, or the next generated token. */
void sequence_commit_score(struct sequence *s, const struct sequence_env *e, int pos, int target, const struct scores *sc, int i);

/* Leaves the tree, gives the table back and completes the result; code: 0 or why it failed. */
void sequence_finish(struct sequence *s, const struct sequence_env *e, int code, const struct err *err);
