/* What a checkpoint, or a config alone, amounts to: layer plan, parameters, FLOPs and KV bytes a token. Reads headers only. */
#pragma once
#include "common/buf.h"
#include "common/json.h"
#include "common/log.h"
#include "kernels/dtype.h"

struct inspect_options {
    const char *model;   /* a checkpoint directory, a directory with config.json alone, or a config file */
    const char *family;  /* "dense", "dtrnet", "mod", "dllm": how to read a config without tensors; NULL: dtrnet if it has dtrnet_layers */
    double route_rate;   /* share of the executed tokens that attend in routed layers, 0..1 (MoD, D-LLM: of all, that are selected) */
    double execute_rate; /* share of tokens that nested layers execute, 0..1 */
    int context;         /* tokens of context for attention's cost, >= 1; 0: max_position_embeddings */
    int kv_dtype;        /* enum dtype of K and V; -1: as stored */
    const char *rope_scaling, *rope_factor, *dense_layers, *expert_choice, *accept_keys; /* as in model_overrides; NULL: none */
    struct log *log;
};

/* The report as a JSON object; ownership passes to the caller. Counts of a config without tensors come from the plan; with tensors the
 * two are compared and a difference is an error. Members:
 *   model, family, has_weights, stored_dtype, config {...}, rope {...}, default_max_model_len, bos_token_id, eos_token_ids,
 *   plan [...] (inspect_plan.h), tensors, parameters {total, router, embedding},
 *   flops_per_token {route_rate, execute_rate, context, head, parts {...}, causal {model, dense, ratio}, full {model, dense, ratio}},
 *   kv_bytes_per_token {dtype, row, rows, model, dense, ratio}, router_state_bytes (a sequence's, whatever its length) */
int inspect_report(const struct inspect_options *o, json_t **ret, struct err *err);
/* The same as lines of text. */
int inspect_table(const json_t *report, struct buf *out);
