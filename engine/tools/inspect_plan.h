/* A layer plan for people: every axis of every record by name. */
#pragma once
#include "common/buf.h"
#include "common/json.h"
#include "engine/checkpoint/layer_plan.h"

const char *inspect_router_name(enum router router); /* "none", "mlp", "mamba", "mod", "dllm" */
const char *inspect_decide_name(enum decide decide); /* "p > 0.5", "p >= 0.5", "threshold", "top" */
/* [{layer, kind, forced_dense, router, skip_router, decide, below, attn_gate, layer_gate, norm, kv, scope}]; NULL: no memory. */
json_t *inspect_plan_json(const struct layer_plan *plan, int n_layers);
/* The same as lines of text: layers that differ in no axis share a line. */
int inspect_plan_table(const json_t *plan, struct buf *out);
