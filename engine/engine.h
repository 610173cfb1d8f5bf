/* The engine's face: token ids in, scores and tokens out. It knows no text and no HTTP.
 *
 * One worker thread a device owns the model, the KV pool and the prefix tree. Everything here may be called from any thread
 * unless it says otherwise. A *ticket* is a group of requests that is queued, answered and cancelled as one.
 *
 * Several devices are replicas: each has all of the model, a request runs on one of them, and its bits do not depend on which. Requests go where their
 * prefix was computed before, else where the least is to be done. A device that fails is lost for good; what it had not answered the others run
 * again, and tokens that were generated stay. */
#pragma once
#include "common/err.h"
#include "common/log.h"
#include "engine/checkpoint/layer_plan.h"
#include "engine/request.h"
#include "kernels/dtype.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;
struct engine_ticket;

/* Devices that one engine may have, as replicas of one another. */
#define ENGINE_DEVICES_MAX 16

/* What a ticket is to the scheduler (engine/schedule/policy.h): small and the only one of its client, of usual size, or a large call. */
#define ENGINE_LANES 3
extern const char *const engine_lanes[ENGINE_LANES]; /* "alone", "shared", "bulk" */
/* Bounds of the counts in engine_stats.starts; the last count is of those above all of them. */
#define ENGINE_STARTS 12
extern const int engine_start_edges[ENGINE_STARTS - 1];

struct engine_options {
    const char *model_dir; /* required */
    const char *device;    /* "auto", "cpu", "cuda"; NULL: auto */
    /* Which of its devices: "0,2" or "all"; NULL: number 0, or as many as tensor_parallel says. The CPU may be named as several, which divide its
     * threads. */
    const char *device_list;
    int tensor_parallel;          /* devices that compute the model together, each a part of it; 0: 1 */
    const char *dtype;            /* "auto", "f32", "bf16", "f16"; NULL: auto */
    const char *matmul_precision; /* of f32: "highest": bits of portable-1 everywhere, "high": matrix units may help; NULL: highest */
    int n_threads;                /* 0: all that the process may use */
    const char *cpu_level;        /* NULL: the machine's */
    const char *cuda_level;       /* NULL: the device's */
    int max_model_len;            /* 0: the model's default (design: max_position_embeddings, scaled by RoPE) */
    int max_batch_tokens;         /* rows of one step; 0: 512 on the CPU, 16384 on CUDA */
    int steps_in_flight;          /* steps launched before the results of the first are taken in, 1..2; 0: 2 on CUDA, 1 on the CPU */
    int draw_rows;                /* tokens drawn at a time, each with a copy of its logits; 0: as 128 MiB hold, 1024 at most */
    size_t kv_cache_bytes;        /* of each device; 0: a share of free memory (backend's default) */
    int state_slots;          /* places for router states: one a running sequence, one a copy that the cache keeps; 0: by kv_cache_bytes */
    bool prefix_cache;        /* reuse computed prefixes across requests */
    const char *rope_scaling; /* JSON object replacing config.json's, or NULL */
    const char
        *rope_factor; /* "config" or "ratio": which factor of YaRN counts where config.json has both lengths; NULL: by the model's type */
    const char *accept_keys;   /* "a,b": keys of config.json that are passed over, as the user vouches for them; or NULL */
    const char *dense_layers;  /* "0,2,4", "all", "none" or NULL */
    const char *expert_choice; /* "exact" or "threshold" in place of the checkpoint's expert_choice_inference, or NULL */
    bool random_weights;       /* random_tensor.h's, filled where they are needed; model_dir may be a config's file, and needs no other */
    uint64_t seed;             /* of random weights */
    int bos_id, eos_id;        /* -1: from the checkpoint */
    int max_queue;             /* requests waiting at most; 0: 65536 */
    struct log *log;           /* borrowed; NULL: silent */
};

/* What was loaded; immutable, lives as long as the engine. Sizes and counts of memory are of all devices together. */
struct engine_info {
    const struct model_config *config;
    const struct layer_plan *plan; /* [config->n_layers] */
    const char *device, *dtype, *numerics_class;
    const char *level; /* of the device's instructions or kernels in use: "avx2", "wgmma" */
    bool host_memory;  /* the device computes in the host's own memory */
    int max_model_len, max_batch_tokens;
    int n_threads;                        /* of all devices together */
    int n_devices;                        /* replicas of one another; with tensor_parallel each is a group of devices */
    int n_ranks;                          /* devices of a group */
    int device_index[ENGINE_DEVICES_MAX]; /* [n_devices] their numbers; of a group the first one's */
    int32_t bos_id, eos_id;               /* -1: none */
    size_t kv_rows_total;                 /* row slots in the pool; one holds K and V of one token in one layer */
    size_t kv_row_bytes;
    size_t state_slots_total; /* places for router states; 0: routers have none */
    size_t state_slot_bytes;  /* of one: the states of all recurrent routers after one prefix */
    size_t weight_bytes;
    size_t workspace_bytes; /* activations of a step */
};

struct engine_stats {
    uint64_t requests_done, requests_failed, requests_cancelled;
    uint64_t steps, tokens_generated, tokens_scored;
    uint64_t steps_launched;
    uint64_t preemptions;                         /* sequences that made way for others, to be computed again */
    uint64_t starts[ENGINE_LANES][ENGINE_STARTS]; /* tickets by lane, and by the steps launched from their submission to their first row */
    uint64_t start_steps[ENGINE_LANES];           /* those steps, added up */
    uint64_t steps_overlapped;                    /* of them, launched while another was in flight */
    uint64_t sequences_joined;                    /* sequences that ran in one step with the prefix that they share with another */
    uint64_t rows_computed;                       /* appended: each left K and V where it attended */
    uint64_t rows_followed;                       /* of them, launched before the token before was known on the host */
    uint64_t rows_dropped; /* launched so, and not counted: their sequences had ended, or made way; or joined rows for which memory ended */
    uint64_t rows_rescored;                   /* run again over cached keys for a score */
    uint64_t rows_cached;                     /* positions that requests took from the prefix tree */
    uint64_t rows_routed[MODEL_MAX_LAYERS];   /* of rows_computed, how many attended in layer l */
    uint64_t rows_executed[MODEL_MAX_LAYERS]; /* and how many did not skip it */
    uint64_t kv_rows_held;                    /* slots that hold K and V now */
    uint64_t kv_rows_most;                    /* slots in use at a time so far, at most: no others were ever written */
    uint64_t kv_rows_reserved;                /* slots promised to running requests beyond these */
    uint64_t tree_tokens, tree_nodes, evicted_tokens;
    uint64_t tree_bytes;                /* host memory of the prefix tree: tokens, decisions, slot numbers, scores */
    uint64_t states_held, states_total; /* copies of router states that the tree keeps, and places for copies; 0: routers have none */
    int queued, running;
    uint64_t requests_moved; /* that other devices took over when this one was lost */
    double busy_s; /* seconds that the worker spent launching steps, waiting for them, taking in their results and drawing tokens */
    double wait_s; /* of them, waiting for the device */
    double matmul_s, attention_s, other_s; /* busy_s, divided as steps sampled once a second were (kernels/op_times.h) */
    uint64_t memory_total_bytes,
        memory_free_bytes; /* of the device, when the latest sampled step began; on the CPU what the process may use */
};

/* Loads the checkpoint and starts the worker. */
int engine_open(const struct engine_options *o, struct engine **ret, struct err *err);
/* Cancels what runs, stops the worker, frees everything. No ticket may be in use. NULL is valid. */
void engine_close(struct engine *e);

const struct engine_info *engine_info(const struct engine *e);
/* The model's hash: hex SHA-256 over config.json and the weight files, which are read for it beside the first requests. 1: *ret is it, for as long as the engine
 * lives; 0: it is not known yet (never with `wait`); ERR_IO: the files changed meanwhile. */
int engine_model_hash(const struct engine *e, bool wait, const char **ret, struct err *err);
void engine_stats(struct engine *e, struct engine_stats *ret); /* of all devices together */
/* Of the i-th device, 0 .. info's n_devices - 1. */
void engine_device_stats(struct engine *e, int i, struct engine_stats *ret);
void engine_stats_add(struct engine_stats *sum, const struct engine_stats *s);
/* 0 while a device is healthy; else the code of the failure that took the last one down, with its text. */
int engine_health(struct engine *e, struct err *err);
/* The same of the i-th device. */
int engine_device_health(struct engine *e, int i, struct err *err);
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
