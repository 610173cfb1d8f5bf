/* The next token from a row of logits: temperature, top-k, top-p, and a counter-based random number, so that a choice depends on
 * the logits, the parameters, the seed and the token's index alone.
 *
 * The choice is defined on the candidates in descending order (ties by smaller id): a token's weight is exp((logit - best) / temperature), top-k keeps
 * the first k, top-p the shortest beginning whose share of the weight reaches p, and the token is the first at which the running weight
 * passes a random share of what was kept. It is found in O(vocab) without sorting: by a histogram of the weights over the order, of which only the
 * bucket that holds the choice is sorted. Sums of another order differ in their last bits; where these could decide, all candidates are
 * put in order by a radix sort, so the token is always the one that is defined above. */
#pragma once
#include <stdint.h>

struct sampler_params {
    float temperature; /* > 0 */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
    uint64_t seed;
};

/* Scratch of one thread for rows of one vocabulary. */
struct sampler;

int sampler_new(int vocab, struct sampler **ret); /* 0 or ERR_NOMEM */
void sampler_free(struct sampler *s);             /* NULL is valid */

/* logits: f32 [vocab], finite. index: which generated token of the request. */
int32_t sampler_pick(struct sampler *s, const float *logits, const struct sampler_params *p, uint64_t index);
