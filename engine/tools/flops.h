/* What sequences cost: floating-point operations (2 a multiply-add), rows of K and V, and router states, from the config and the plan.
 *
 * Matrix products, attention's two products and routers count; norms, activations, rotation and gates do not, and the head is kept apart. Two labels
 * for attention: *causal* counts the keys that a position sees, m(m+1)/2 pairs for m keys; *full* m^2, as the papers do. */
#pragma once
#include "engine/checkpoint/layer_plan.h"
#include "engine/checkpoint/model_config.h"

/* Shares that are taken for every layer, evenly over positions. */
struct rates {
    double attend;  /* D and S layers: of the executed tokens, those that attend; MoD and D-LLM: of all, those that are selected */
    double execute; /* S layers: of all tokens, those that are executed */
};

struct flops {
    double vo, qk, mlp, router; /* projections of values and outputs, of queries and keys; the MLP; routers */
    double causal, full;        /* scores and their products with values */
};

struct sequence_cost {
    struct flops flops;
    double kv_rows;     /* rows of K and V, summed over layers */
    double state_bytes; /* of router states; a sequence has them whatever its length */
};

/* A sequence of n positions from its first token on. */
void sequence_cost(const struct model_config *c, const struct layer_plan *plan, struct rates rates, double n, struct sequence_cost *ret);
/* The same of a sequence whose rows are counted: attended[l] of n attended (were selected) in layer l, executed[l] were executed; NULL: all
 * of them, or where a layer skips those that attended. */
void sequence_cost_counted(const struct model_config *c, const struct layer_plan *plan, const int *attended, const int *executed, int n,
                           struct sequence_cost *ret);
/* The same with every layer dense. */
void sequence_cost_dense(const struct model_config *c, double n, struct sequence_cost *ret);

double flops_causal(const struct flops *f); /* of all parts */
double flops_full(const struct flops *f);
double flops_head(const struct model_config *c); /* of one row of logits */

/* Sums over sequences, heads excluded, beside those of the same sequences with every layer dense. */
struct sequences_cost {
    double causal, full, kv_rows;
    double dense_causal, dense_full, dense_kv_rows;
};

/* Adds a sequence as sequence_cost_counted takes it. */
void sequences_cost_add(struct sequences_cost *sum, const struct model_config *c, const struct layer_plan *plan, const int *attended,
                        const int *executed, int n);
