/* What a token costs: floating-point operations (2 a multiply-add) and KV bytes, from the config and the plan.
 *
 * A routed layer is taken to select the share `route_rate` of the tokens, evenly over positions. Matrix products and attention's two
 * products count; norms, activations and rotation do not. Two labels for attention over T tokens of context: *causal* is what is
 * computed, T/2 keys a token; *full* takes T, as the papers do. The head is kept apart from both. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"

struct token_cost {
    double causal, full; /* FLOPs of all layers a token, head excluded */
    double head;         /* FLOPs of one row of logits */
    double kv_rows;      /* rows of K and V that a token leaves, summed over layers */
};

/* What sequences cost together, each computed once from its first token on, heads excluded; the same with every layer dense. */
struct sequences_cost {
    double causal, full, kv_rows;
    double dense_causal, dense_full, dense_kv_rows;
};

void token_cost(const struct model_config *c, const struct layer_plan *plan, double route_rate, int context, struct token_cost *ret);
/* The same with every layer dense. */
void token_cost_dense(const struct model_config *c, int context, struct token_cost *ret);
/* Adds a sequence of n positions, of which rows_routed[l] attended in layer l. rows_routed: [n_layers]. */
void sequences_cost_add(struct sequences_cost *sum, const struct model_config *c, const struct layer_plan *plan, const int *rows_routed,
                        int n);
