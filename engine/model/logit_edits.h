/* What a request asks to be done to a row of logits before a token is chosen from it (request.h, struct logit_edits), as vLLM does it: bias, then
 * penalties on what stands in the prompt and in what was generated, then what is left out. Scores are of the model's own logits. */
#pragma once
#include "engine/request.h"

/* The tokens that penalties look at. */
struct logit_history {
    const int32_t *prompt, *made; /* [n_prompt], [n_made] */
    int n_prompt, n_made;
};

/* logits: f32 [v], finite, and finite afterwards: what is left out gets a weight of exactly 0 at this temperature. counts: int32 [v], zeros before and
 * after. */
void logit_edits_apply(float *logits, int v, const struct logit_edits *e, float temperature, const struct logit_history *h,
                       int32_t *counts);
