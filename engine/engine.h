/* The engine's face: token ids in, scores and tokens out. It knows no text and no HTTP.
 *
 * One worker thread owns the model, the KV pool and the prefix tree. Everything here may be called from any thread
 * unless it says otherwise. A *ticket* is a group of requests that is queued, answered and cancelled as one. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include "engine/checkpoint/layer_plan.h"
#include "kernels/dtype.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct engine_ticket;

#define ENGINE_TOP_K_MAX 20

struct engine_options {
    const char *model_dir;    /* required */
    const char *device;       /* "auto", "cpu", "cuda"; NULL: auto */
    const char *dtype;        /* "auto", "f32", "bf16", "f16"; NULL: auto */
    int n_threads;            /* 0: all that the process may use */
    const char *cpu_level;    /* NULL: the machine's */
    const char *cuda_level;   /* NULL: the device's */
    int max_model_len;        /* 0: the model's default (design: max_position_embeddings, scaled by RoPE) */
    int max_batch_tokens;     /* rows of one step; 0: 512 on the CPU, 16384 on CUDA */
    int steps_in_flight;      /* steps launched before the results of the first are taken in, 1..2; 0: 2 on CUDA, 1 on the CPU */
    size_t kv_cache_bytes;    /* 0: a share of free memory (backend's default) */
    bool prefix_cache;        /* reuse computed prefixes across requests */
    const char *rope_scaling; /* JSON object replacing config.json's, or NULL */
    const char *dense_layers; /* "0,2,4", "all", "none" or NULL */
    int bos_id, eos_id;       /* -1: from the checkpoint */
    int max_queue;            /* requests waiting at most; 0: 65536 */
    struct log *log;          /* borrowed; NULL: silent */
};

/* What was loaded; immutable, lives as long as the engine. */
struct engine_info {
    const struct model_config *config;
    const struct layer_plan *plan; /* [config->n_layers] */
    const char *device, *dtype, *numerics_class;
    const char *model_hash; /* hex SHA-256 over config.json and the weight files */
    int max_model_len, max_batch_tokens;
    int n_threads;
    int32_t bos_id, eos_id; /* -1: none */
    size_t kv_rows_total;   /* row slots in the pool; one holds K and V of one token in one layer */
    size_t kv_row_bytes;
    size_t weight_bytes;
    size_t workspace_bytes; /* activations of a step */
};

enum finish { FINISH_NONE, FINISH_LENGTH, FINISH_EOS, FINISH_STOP };

/* One sequence to score and, or, to continue. Arrays are borrowed until the ticket is done. */
struct eval_request {
    const int32_t *tokens; /* [n_tokens], 1 <= n_tokens; n_tokens - 1 + max_new <= max_model_len (with max_new 0) */
    int n_tokens;
    int score_begin;   /* tokens score_begin .. n_tokens-1 get a logprob; 1 <= score_begin <= n_tokens (= none) */
    int top_k;         /* best alternatives kept beside each logprob, 0..ENGINE_TOP_K_MAX */
    int max_new;       /* tokens to generate, 0 = score only */
    float temperature; /* 0: greedy */
    int sample_top_k;  /* 0: off */
    float top_p;       /* 1: off */
    uint64_t seed;     /* a generated token depends on tokens, parameters, seed and its index alone */
    bool ignore_eos;
    bool want_routing;
    /* Both run on the worker thread, so they must be short and wait for nothing; NULL: none. */
    void (*on_token)(void *user); /* engine_tokens has grown */
    void (*on_done)(void *user);  /* once: nothing more will come; engine_wait returns as soon as every request of the ticket has said so */
    void *user;
};

/* Borrowed from the ticket. k1 = max(1, top_k). */
struct eval_result {
    int code; /* 0, or why the request failed; then only err is meaningful */
    struct err err;
    int n_scored;              /* n_tokens - score_begin */
    const float *logprobs;     /* [n_scored] natural log of the token's probability */
    const int32_t *top_ids;    /* [n_scored, k1] */
    const float *top_logprobs; /* [n_scored, k1]; a token is greedy iff its logprob == top_logprobs[.., 0] */
    int n_new;
    const int32_t *new_tokens;     /* [n_new], EOS included where it ended the generation */
    const float *new_logprobs;     /* [n_new] */
    const int32_t *new_top_ids;    /* [n_new, k1] */
    const float *new_top_logprobs; /* [n_new, k1] */
    enum finish finish;
    int n_rows;                     /* positions whose rows this sequence rests on */
    int rows_computed, rows_cached; /* rows run for it (again for a score included), and taken from the prefix tree */
    const int *rows_routed;         /* [n_layers] of n_rows, those that attended (selected, executed); all in dense layers */
    int n_routing;                  /* positions in `routing`; 0 unless want_routing */
    const uint8_t *routing;         /* [n_layers, n_routing] 1 = attends (selected, executed) */
};

struct engine_stats {
    uint64_t requests_done, requests_failed, requests_cancelled;
    uint64_t steps, tokens_generated, tokens_scored;
    uint64_t steps_overlapped;              /* of them, launched while another was in flight */
    uint64_t rows_computed;                 /* appended: each left K and V where it attended */
    uint64_t rows_rescored;                 /* run again over cached keys for a score */
    uint64_t rows_cached;                   /* positions that requests took from the prefix tree */
    uint64_t rows_routed[MODEL_MAX_LAYERS]; /* of rows_computed, how many attended (selected, executed) in layer l */
    uint64_t kv_rows_held;                  /* slots that hold K and V now */
    uint64_t kv_rows_reserved;              /* slots promised to running requests beyond these */
    uint64_t tree_tokens, tree_nodes, evicted_tokens;
    int queued, running;
    double busy_s;                         /* seconds that the worker spent launching steps, waiting for them and taking in their results */
    double wait_s;                         /* of them, waiting for the device */
    double matmul_s, attention_s, other_s; /* busy_s, divided as steps sampled once a second were (kernels/op_times.h) */
    uint64_t memory_total_bytes,
        memory_free_bytes; /* of the device, when the latest sampled step began; on the CPU what the process may use */
};

/* Loads the checkpoint and starts the worker. */
int engine_open(const struct engine_options *o, struct engine **ret, struct err *err);
/* Cancels what runs, stops the worker, frees everything. No ticket may be in use. NULL is valid. */
void engine_close(struct engine *e);

const struct engine_info *engine_info(const struct engine *e);
void engine_stats(struct engine *e, struct engine_stats *ret);
/* 0 while healthy; else the code of the failure that took the device down, with its text. */
int engine_health(struct engine *e, struct err *err);
/* Refuses new tickets (ERR_DRAINING) from now on; what is queued is finished. */
void engine_drain(struct engine *e);
/* Drops every unpinned part of the prefix tree; for tests and measurements. Returns when done. */
void engine_cache_clear(struct engine *e);

/* Checks and queues `n` requests as one ticket: all or none. `reqs` is borrowed until the ticket is done. Errors: ERR_INVALID with the
 * field's name (ids out of range, lengths above the limit), ERR_BUSY, ERR_DRAINING, ERR_DEVICE. */
int engine_submit(struct engine *e, const struct eval_request *reqs, int n, struct engine_ticket **ret, struct err *err);
/* Is the queue full, so that engine_submit would say ERR_BUSY? */
bool engine_full(struct engine *e);
/* Host memory that the ticket of such a request takes for it, from engine_submit to engine_ticket_free. */
size_t engine_request_bytes(const struct engine *e, const struct eval_request *q);
/* True when every request of the ticket is done; waits at most timeout_ms (< 0: for ever). */
bool engine_wait(struct engine_ticket *t, int timeout_ms);
/* Valid after engine_wait returned true, but for what engine_tokens says. */
const struct eval_result *engine_result(const struct engine_ticket *t, int i);
/* How many generated tokens of request i can be read: so many entries of its result's new_tokens, new_logprobs, new_top_ids and
 * new_top_logprobs are filled, and stay as they are until the ticket is freed, whatever becomes of the request. */
int engine_tokens(const struct engine_ticket *t, int i);
/* Request i generates no more than the token under way, and ends with FINISH_STOP. */
void engine_stop(struct engine_ticket *t, int i);
/* Ends the ticket's requests with ERR_CANCELLED as soon as the current step is over. */
void engine_cancel(struct engine_ticket *t);
/* Cancels what is not done, waits for it, frees the ticket and its results. NULL is valid. */
void engine_ticket_free(struct engine_ticket *t);
