/* See logit_edits.h. The formulas are those of vllm/model_executor/layers/utils.py (apply_penalties) and vllm/v1/sample (logit bias, min tokens,
 * min-p). */
#include "engine/model/logit_edits.h"
#include "kernels/portable.h"
#include <math.h>
#include <stdbool.h>

#define IN_PROMPT (1 << 30) /* in a count: the prompt has it */
#define NO_WEIGHT 1000.0f   /* exp(-1000) is 0 in a double */

static void repeat_once(float *logit, float penalty)
{
    *logit = *logit > 0 ? *logit / penalty : *logit * penalty;
}

/* Counts what was generated, marks what was asked, and takes the repetition penalty once for each token of both. */
static void count(float *logits, const struct logit_edits *e, const struct logit_history *h, int32_t *counts)
{
    for (int i = 0; i < h->n_prompt; i++) {
        if (!counts[h->prompt[i]])
            repeat_once(&logits[h->prompt[i]], e->repetition_penalty);
        counts[h->prompt[i]] = IN_PROMPT;
    }
    for (int i = 0; i < h->n_made; i++)
        if (!counts[h->made[i]]++)
            repeat_once(&logits[h->made[i]], e->repetition_penalty);
}

static void apply_penalties(float *logits, const struct logit_edits *e, const struct logit_history *h, int32_t *counts)
{
    count(logits, e, h, counts);
    for (int i = 0; i < h->n_made; i++) {
        int32_t id = h->made[i], n = counts[id] & ~IN_PROMPT;
        counts[id] -= n; /* once a token */
        logits[id] -= n ? e->frequency_penalty * (float)n : 0;
        logits[id] -= n ? e->presence_penalty : 0;
    }
    for (int i = 0; i < h->n_prompt; i++)
        counts[h->prompt[i]] = 0;
}

/* Uses counts to mark; returns how many are marked. */
static int mark_held(const struct logit_edits *e, int n_made, int32_t *counts)
{
    int n = 0;
    for (int i = 0; i < e->n_held && n_made < e->min_tokens; i++)
        n += !counts[e->held_ids[i]]++;
    return n;
}

static void unmark_held(const struct logit_edits *e, int32_t *counts)
{
    for (int i = 0; i < e->n_held; i++)
        counts[e->held_ids[i]] = 0;
}

static void leave_out(float *logits, int v, const struct logit_edits *e, float temperature, const int32_t *held)
{
    float max = -INFINITY;
    for (int i = 0; i < v; i++)
        max = !held[i] && logits[i] > max ? logits[i] : max;
    double least = e->min_p > 0 && temperature > 0 ? portable_log_double((double)e->min_p) * (double)temperature : -INFINITY;
    for (int i = 0; i < v; i++)
        if (held[i] || (double)logits[i] - (double)max < least)
            logits[i] = max - NO_WEIGHT * temperature - 1;
}

void logit_edits_apply(float *logits, int v, const struct logit_edits *e, float temperature, const struct logit_history *h, int32_t *counts)
{
    for (int i = 0; i < e->n_bias; i++)
        logits[e->bias[i].id] += e->bias[i].value;
    if (e->repetition_penalty != 1 || e->frequency_penalty != 0 || e->presence_penalty != 0)
        apply_penalties(logits, e, h, counts);
    int held = mark_held(e, h->n_made, counts);
    if (held < v && (held || e->min_p > 0)) /* a token must be left */
        leave_out(logits, v, e, temperature, counts);
    unmark_held(e, counts);
}
