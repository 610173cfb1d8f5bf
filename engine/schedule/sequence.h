/* One request on its way through the engine: which of its rows are in the tree, which must run, and what came out.
 *
 * Rows are positions 0 .. : row p predicts token p+1. Rows whose K and V the tree has are run again only where a score is missing ("rerun":
 * queries over the cached keys, appending nothing); the others are computed in order ("append").
 * Used by the worker thread only, but for sequence_prepare and sequence_release. */
#pragma once
#include "engine/memory/extents.h"
#include "engine/memory/tree.h"
#include "engine/model/sampler.h"
#include "engine/request.h"
#include "engine/schedule/step.h"
#include <stdatomic.h>
#include <stddef.h>

struct engine_ticket;
struct ticket_place;

/* In which list of its ticket's flow (flow.h) a sequence is. */
enum sequence_where { SEQUENCE_ELSEWHERE, SEQUENCE_WAITING, SEQUENCE_READY, SEQUENCE_RUNNING };

struct sequence {
    struct sequence *prev, *next; /* in one list at a time (seq_list.h) */
    struct engine_ticket *ticket;
    struct ticket_place *place; /* of its ticket: on which device it is */
    int64_t load;               /* rows that it will compute there, about, as the queue was told */
    int n_losses;               /* devices that failed with a step of it in flight */
    /* the policy's */
    enum sequence_where where;
    int lcp;              /* in a window: tokens that it surely shares with the one before */
    int grant;            /* during a division: its grant, counted from 1; 0: none */
    int n_preempted;      /* times */
    uint64_t admitted;    /* counted from 1 in the order of admissions; the latest */
    uint64_t admitted_at; /* launches before that */
    uint64_t passed;      /* launches + 1 when it first had to wait for another's rows; 0: it had not */
    uint64_t no_room;     /* likewise for room */
    int blocked_at;       /* computed tokens before the row that it waits for */
    uint64_t may_join;    /* the latest round that found it waiting for rows which are not in flight yet (sequence_join) */
    const struct eval_request *req;
    struct eval_result result;
    struct sampler_params sampler;
    double submitted_s; /* monotonic */
    int k1;             /* alternatives kept: max(1, req->top_k) */
    bool done;
    int n_flights; /* steps with rows of it that have been launched and not yet collected: 2 where the later one's row follows */
    bool follows;  /* the latest of them has one row, which follows those in the one before (step_rows.h) */
    bool drawing;  /* its next token is being drawn: from the launch of the step until the token is told */
    struct draw draw;
    int n_appending; /* rows that the latest step in flight appends */
    /* of the latest step in flight whose last row may be followed, NULL: it may not; its last run there, and which wanted row the last one is */
    struct step *flight;
    int flight_run, flight_want;
    /* outputs, one allocation (`block`) */
    void *block;
    float *logprobs, *top_logprobs, *new_logprobs, *new_top_logprobs;
    int32_t *top_ids, *new_tokens, *new_top_ids;
    int *rows_routed, *rows_executed;
    uint8_t *routing;
    float *probs, *skip_probs; /* one allocation of its own, if the request wants them */
    /* while it runs */
    struct tree_path path;
    int64_t table_off;           /* of its block tables; -1: none */
    int table_cap;               /* positions that may be computed */
    int64_t promised;            /* KV slots set aside for rows still to come: all of a prompt's, some of a generation's */
    int n_prompt_rows;           /* rows of the prompt that must be computed */
    int n_kv;                    /* positions computed, 0 .. n_kv-1 */
    int n_cached;                /* of them, taken from the tree */
    int n_rerun_left, rerun_pos; /* rows to run again, and the position from which on to look for them */
    /* From sequence_join until its first step is over: who computes positions branch_begin .. n_cached-1 in that step; NULL: nobody. */
    const struct sequence *branch_of;
    int branch_begin;
    bool lost_branch;          /* those were not kept, and so nothing was of what it computed behind them: it must be preempted */
    int state_slot, state_pos; /* routers with a state: the slot of its own, and the position whose states are in it; -1: none */
    int rows_run;
    int n_new;
    atomic_int n_shown;          /* of them, those that other threads may read */
    atomic_bool stopped;         /* set by other threads: the next token is the last */
    int *kv_count, *rerun_count; /* [n_layers] keys before position n_kv, and before rerun_pos */
    uint8_t *route;              /* [table_cap, bits->n_bytes] */
    uint8_t *need;               /* [table_cap] enum row_need */
};

/* Why a row must run, or run again. */
enum row_need {
    NEED_SCORE = 1, /* its logits are wanted and not in the tree */
    NEED_STATE = 2, /* it leads from a kept copy of the router states to a row that must run */
    NEED_PROBS = 4, /* what its routers compared is wanted, which the tree does not keep */
};

/* What a sequence works on, all of it the worker's. */
struct sequence_env {
    struct executor *x;
    struct tree *tree;
    struct extents *tables;      /* of the block tables */
    struct extents *kept_tables; /* those behind them, for small requests; NULL: none */
    int64_t kept_base;           /* where these begin */
    const struct route_bits *bits;
    int *table_host;        /* [n_layers * max_positions] scratch for building block tables */
    const int32_t *eos_ids; /* [n_eos] */
    int n_eos;
    bool whole_prompts; /* executor.h */
    int states_kept;    /* places for router states that copies must leave free */
    int state_every;    /* routers with a state: positions between copies that the tree keeps; 0: routers have none */
};

/* What sequence_prepare, and the routing that a request wants, take beside the struct. */
size_t sequence_bytes(const struct eval_request *req, int n_layers);
/* Allocates the outputs; 0 or ERR_NOMEM. Any thread. */
int sequence_prepare(struct sequence *s, const struct eval_request *req, int n_layers, struct engine_ticket *ticket);
void sequence_release(struct sequence *s); /* frees the outputs */

/* ---- sequence_admit.c ---------------------------------------------------------------------------------------- */
enum admission {
    ADMIT_DONE,
    ADMIT_WAIT_PREFIX, /* another sequence is computing the next row that this one needs */
    ADMIT_WAIT_ROOM,   /* too few KV slots or table entries are free */
    ADMIT_FAILED,      /* s->result holds the error */
    ADMIT_LOST,        /* the executor failed; s is as before */
};
/* What there is for a sequence. */
struct admission_terms {
    int64_t promised; /* KV slots set aside for others */
    int states_kept;  /* places for router states that must stay free */
    int ahead;        /* generated tokens to set slots aside for */
    bool lone;        /* may use kept_tables */
    bool by_itself;   /* computes what another is computing rather than wait for it */
};
/* Enters the tree, takes what it has, reserves slots and block tables. *ret_owner: with ADMIT_WAIT_PREFIX, the one that it waits for. */
enum admission sequence_admit(struct sequence *s, const struct sequence_env *e, const struct admission_terms *terms,
                              const struct sequence **ret_owner);

/* Admits a sequence that waits for rows of another one which are to run in the next step: it branches from them in that step (kernels.h), in which
 * all rows that it has due must be, behind the other's. ADMIT_WAIT_PREFIX: it does not wait so, the other may not be branched from, or it would
 * have more than max_rows rows due. */
enum admission sequence_join(struct sequence *s, const struct sequence_env *e, const struct admission_terms *terms, int64_t max_rows);
/* The step of its branch is over, and the other's rows were committed: they are the sequence's too, unless they could not be kept (lost_branch). */
void sequence_take_branch(struct sequence *s, const struct sequence_env *e);
/* The other's scores were committed too, before any of the sequence's own. Those that it wants and are missing are computed by running their rows again, and
 * then the row whose token it generates: what the step told of that one is not taken. */
void sequence_take_branch_scores(struct sequence *s, const struct sequence_env *e);

/* Gives the block tables back; without any it does nothing. */
void sequence_give_tables(struct sequence *s, const struct sequence_env *e);

/* ---- sequence_pack.c ----------------------------------------------------------------------------------------- */
/* Rows that can run now; 0: the sequence has all it needs, or what it needs next depends on a step in flight. Of a sequence in flight 1, where a row may
 * follow. */
int sequence_due(const struct sequence *s);
/* Rows whose tokens are known and that are not appended yet, up to the end of the prompt while it is in that. */
int sequence_appends(const struct sequence *s);
/* Are there rows of its prompt to be appended? */
bool sequence_in_prompt(const struct sequence *s);
/* Does a sequence in flight need more rows than those under way? */
bool sequence_goes_on(const struct sequence *s);
/* Adds n <= sequence_due rows to the step, with which the sequence is in flight; one that branches has all of them added, behind the rows that it
 * branches from. If routers have states, copies to be kept are added too. */
void sequence_pack(struct sequence *s, const struct sequence_env *e, struct step *step, int n);

/* ---- sequence.c ---------------------------------------------------------------------------------------------- */
/* The next n appended rows came back: decisions [n, bits->n_bytes], and their slots as tree_append takes them; the caller adds to kv_count.
 * Returns how many rows were kept; where that is fewer than n memory is short, and the slots of the others remain the caller's. */
int sequence_commit_rows(struct sequence *s, const struct sequence_env *e, int n, const uint8_t *route, const int *slots);
/* What routers compared for the rows of run number i_run, the first of which is position pos. */
void sequence_commit_probs(struct sequence *s, const struct sequence_env *e, int pos, const struct step *step, int i_run);
/* The step left a copy of the router states at position `pos` in `slot`. The tree keeps it, or the slot goes back. */
void sequence_commit_state(struct sequence *s, const struct sequence_env *e, int pos, int slot);
/* Wanted row i of the results: the score of the token after position pos, or the next generated token; of one that is drawn, the alternatives. */
void sequence_commit_score(struct sequence *s, const struct sequence_env *e, int pos, const struct step_results *results, int i);
/* The token that was drawn. */
void sequence_commit_draw(struct sequence *s, const struct sequence_env *e);

/* Leaves the tree and gives back all that it has on the device; a row that follows is dropped: what it computes is nobody's, and not counted. It keeps
 * its tokens and scores, and may be admitted again, here or on another device, where its rows have the same bits; it is not away. */
void sequence_withdraw(struct sequence *s, const struct sequence_env *e);
/* The same where it made way for others, which is counted. */
void sequence_preempt(struct sequence *s, const struct sequence_env *e);
/* The same for good, and completes the result; code: 0 or why it failed. It may be drawing yet. */
void sequence_finish(struct sequence *s, const struct sequence_env *e, int code, const struct err *err);

/* Its tokens are drawn, not the best. */
static inline bool sequence_draws(const struct sequence *s)
{
    return s->req->max_new && (s->req->temperature > 0 || s->req->edits);
}

static inline struct sequence *sequence_of_draw(struct draw *d)
{
    return (struct sequence *)((char *)d - offsetof(struct sequence, draw));
}

/* It waits for a step or for a token, and can neither run nor make way; but a step in which nothing but a row that follows is its own holds nothing up. */
static inline bool sequence_away(const struct sequence *s)
{
    return s->n_flights > s->follows || s->drawing;
}

/* Tokens from position pos on, as far as the prompt or what was generated goes. */
static inline const int32_t *sequence_tokens(const struct sequence *s, int pos)
{
    return pos < s->req->n_tokens ? &s->req->tokens[pos] : &s->new_tokens[pos - s->req->n_tokens];
}
