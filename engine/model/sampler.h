/* The next token from a row of logits: temperature, top-k, top-p, and a counter-based random number, so that a choice depends on
 * the logits, the parameters, the seed and the token's index alone. */
#pragma once
#include <stdint.h>

struct sampler_params {
    float temperature; /* > 0 */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
    uint64_t seed;
};

/* logits: f32 [v], finite. index: which generated token of the request. scratch: int32 [v]. */
int32_t sampler_pick(const float *logits, int v, const struct sampler_params *p, uint64_t index, int32_t *scratch);
