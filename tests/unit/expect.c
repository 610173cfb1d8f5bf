/* See expect.h. */
#include "tests/unit/expect.h"
#include "engine/schedule/sequence.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

void expect_on_token(void *user)
{
    struct expect_watch *w = user;
    int n = atomic_load(&w->seq->n_shown);
    w->n_tokens++;
    if (n != w->n_tokens || w->seq->new_tokens[n - 1] == w->stop)
        atomic_store(&w->seq->stopped, true);
}

void expect_on_done(void *user)
{
    ((struct expect_watch *)user)->n_done++;
}

int expect_code(const struct eval_request *q, struct fake_kind kind)
{
    int rows = q->n_tokens - (q->max_new ? 0 : 1);
    for (int p = 0; p < rows; p++)
        if ((q->tokens[p] == FAKE_BAD_TOKEN && p >= q->score_begin - 1) || (q->tokens[p] == FAKE_BAD_STATE && kind.states))
            return ERR_NUMERIC;
    return 0;
}

static bool same(bool equal, const char *what, int at, double got, double want)
{
    if (!equal)
        fprintf(stderr, "%s %d is %.9g, not %.9g\n", what, at, got, want);
    return equal;
}

static bool same_row(uint64_t row, int k1, int target, float lp, const int32_t *top_ids, const float *top_lps, int at)
{
    float want = fake_model_logprob(row, target);
    if (target >= 0 && !same(lp == want, "logprob", at, (double)lp, (double)want))
        return false;
    for (int j = 0; j < k1; j++) {
        float top = fake_model_top_logprob(row, j);
        if (!same(top_ids[j] == fake_model_top_id(row, j), "alternative", at, top_ids[j], fake_model_top_id(row, j)) ||
            !same(top_lps[j] == top, "its logprob", at, (double)top_lps[j], (double)top))
            return false;
    }
    return true;
}

static bool same_scores(const struct eval_request *q, const struct eval_result *r, struct fake_kind kind)
{
    struct fake_sequence s = {kind, q->tokens, q->n_tokens - 1}; /* scored in a pass of its own if that makes a difference */
    int k1 = q->top_k > 1 ? q->top_k : 1;
    if (!same(r->n_scored == q->n_tokens - q->score_begin, "scored", 0, r->n_scored, q->n_tokens - q->score_begin))
        return false;
    for (int i = 0; i < r->n_scored; i++) {
        int p = q->score_begin + i;
        if (!same_row(fake_model_row(&s, p - 1), k1, q->tokens[p], r->logprobs[i], r->top_ids + i * k1, r->top_logprobs + i * k1, p))
            return false;
    }
    return true;
}

/* Generated token i, drawn or greedy. tokens, which are s's, get it. */
static bool same_token(const struct eval_request *q, const struct eval_result *r, const struct fake_sequence *s, int32_t *tokens, int i)
{
    int n = q->n_tokens + i;
    int k1 = q->top_k > 1 ? q->top_k : 1;
    uint64_t row = fake_model_row(s, n - 1);
    struct sampler_params p = {q->temperature, q->sample_top_k, q->top_p, q->seed};
    bool drawn = q->temperature > 0;
    int token = drawn ? fake_model_draw(row, &p, (uint64_t)i) : fake_model_top_id(row, 0);
    float lp = drawn ? fake_model_logprob(row, token) : fake_model_top_logprob(row, 0);
    tokens[n] = token;
    return same(r->new_tokens[i] == token, "generated token", i, r->new_tokens[i], token) &&
           same(r->new_logprobs[i] == lp, "its logprob", i, (double)r->new_logprobs[i], (double)lp) &&
           same_row(row, k1, -1, 0, r->new_top_ids + i * k1, r->new_top_logprobs + i * k1, n);
}

/* Returns how many tokens `tokens` holds then; 0: they differ. */
static int same_generation(const struct eval_request *q, const struct eval_result *r, int eos, struct fake_kind kind, int32_t *tokens)
{
    struct fake_sequence s = {kind, tokens, q->n_tokens};
    const struct expect_watch *w = q->on_token ? q->user : NULL;
    enum finish_reason finish = FINISH_NONE;
    int i = 0;
    for (; finish == FINISH_NONE && i < q->max_new; i++) {
        if (!same(i < r->n_new, "generated tokens", 0, r->n_new, i + 1) || !same_token(q, r, &s, tokens, i))
            return 0;
        int token = tokens[q->n_tokens + i];
        finish = !q->ignore_eos && token == eos          ? FINISH_EOS
                 : w && (w->stopped || w->stop == token) ? FINISH_STOP
                 : i + 1 == q->max_new                   ? FINISH_LENGTH
                                                         : FINISH_NONE;
    }
    bool ok = same(r->n_new == i, "generated tokens", 0, r->n_new, i) && same(r->finish == finish, "finish", 0, r->finish, finish) &&
              same(!w || w->n_tokens == i, "calls of on_token", 0, w ? w->n_tokens : 0, i);
    return ok ? q->n_tokens + i : 0;
}

/* One layer; routing: [n_rows] or NULL. */
static bool same_layer(const struct eval_result *r, const int32_t *tokens, const uint64_t *contexts, const uint8_t *routing, int l)
{
    int n = 0;
    for (int p = 0; p < r->n_rows; p++) {
        enum decision want = fake_model_decision(tokens[p], l, contexts[p]);
        n += want == DECISION_ATTEND;
        if (routing && !same(routing[p] == want, "decision of position", p, routing[p], want))
            return false;
    }
    return same(r->rows_routed[l] == n, "attending rows of layer", l, r->rows_routed[l], n);
}

static bool same_routing(const struct eval_request *q, const struct eval_result *r, struct fake_sequence s)
{
    int n = q->want_routing ? r->n_rows : 0;
    bool ok = same(r->n_routing == n, "routing positions", 0, r->n_routing, n);
    uint64_t contexts[FAKE_LONGEST];
    fake_model_contexts(&s, r->n_rows, contexts);
    for (int l = 0; ok && l < FAKE_LAYERS; l++)
        ok = same_layer(r, s.tokens, contexts, n ? r->routing + l * n : NULL, l);
    return ok;
}

/* NaN where no router was asked. */
static bool same_prob(float got, bool asked, float want, int p)
{
    return same(asked ? got == want : isnan(got), "probability of position", p, (double)got, asked ? (double)want : NAN);
}

static bool same_probs(const struct eval_request *q, const struct eval_result *r, struct fake_sequence s)
{
    uint64_t contexts[FAKE_LONGEST];
    const struct route_layer *layers = fake_model_layers(s.kind);
    bool ok = same(!r->probs == (!q->want_probs || !r->n_rows), "probabilities", 0, !r->probs, 0);
    fake_model_contexts(&s, r->n_rows, contexts);
    for (int p = 0; r->probs && ok && p < r->n_rows; p++)
        for (int l = 0; ok && l < FAKE_LAYERS; l++) {
            int token = s.tokens[p], i = p * FAKE_LAYERS + l;
            bool nested = layers[l].nested, skips = nested && fake_model_decision(token, l, contexts[p]) == DECISION_SKIP;
            ok = same_prob(r->probs[i], layers[l].routed && !skips, fake_model_prob(token, l, contexts[p], false), p) &&
                 same_prob(r->skip_probs[i], nested, fake_model_prob(token, l, contexts[p], true), p);
        }
    return ok;
}

bool expect_result(const struct eval_request *q, const struct eval_result *r, int eos, struct fake_kind kind)
{
    int32_t tokens[FAKE_LONGEST];
    memcpy(tokens, q->tokens, (size_t)q->n_tokens * sizeof(*tokens));
    int n = same_generation(q, r, eos, kind, tokens), prompt = q->n_tokens - (q->max_new ? 0 : 1);
    return n && same(r->n_rows == n - 1, "rows", 0, r->n_rows, n - 1) && same_scores(q, r, kind) &&
           same_routing(q, r, (struct fake_sequence){kind, tokens, prompt}) &&
           same_probs(q, r, (struct fake_sequence){kind, tokens, prompt});
}
