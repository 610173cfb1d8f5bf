/* What is asked of the engine and what it answers, sequence by sequence: token ids in, scores and tokens out. */
#pragma once
#include "common/err.h"
#include "kernels/decision.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENGINE_TOP_K_MAX 20

enum finish_reason { FINISH_NONE, FINISH_LENGTH, FINISH_EOS, FINISH_STOP };

struct logit_bias {
    int32_t id;
    float value; /* added to the token's logit */
};

/* What is done to logits before a generated token is chosen from them (model/logit_edits.h). Arrays are borrowed until the ticket is done. */
struct logit_edits {
    const struct logit_bias *bias; /* [n_bias], no id twice */
    int n_bias;
    float repetition_penalty; /* 1: off; of tokens in the prompt or generated: logits above 0 are divided by it, others multiplied */
    float frequency_penalty, presence_penalty; /* 0: off; taken off for each time that a token was generated, and if it was at all */
    float min_p;                               /* 0: off; tokens below this share of the likeliest token's probability are left out */
    const int32_t *held_ids;                   /* [n_held] left out of the first min_tokens tokens */
    int n_held, min_tokens;
};

/* One sequence to score and, or, to continue. Arrays are borrowed until the ticket is done. */
struct eval_request {
    uint64_t
        client; /* whose it is: an opaque id, 0 for nobody's in particular. Clients take turns. Of a ticket's requests the first one's counts */
    uint64_t call;         /* large tickets of a client with the same one, that is not 0, take turns as one; likewise */
    const int32_t *tokens; /* [n_tokens], 1 <= n_tokens; n_tokens - 1 + max_new <= max_model_len (with max_new 0) */
    int n_tokens;
    int score_begin;                 /* tokens score_begin .. n_tokens-1 get a logprob; 1 <= score_begin <= n_tokens (= none) */
    int top_k;                       /* best alternatives kept beside each logprob, 0..ENGINE_TOP_K_MAX */
    int max_new;                     /* tokens to generate, 0 = score only */
    float temperature;               /* 0: greedy */
    int sample_top_k;                /* 0: off */
    float top_p;                     /* 1: off */
    const struct logit_edits *edits; /* borrowed until the ticket is done; NULL: none */
    uint64_t seed;                   /* a generated token depends on tokens, parameters, seed and its index alone */
    bool ignore_eos;
    bool want_routing;
    bool want_probs; /* what routers compared: every position is then run, those that the prefix tree has once more */
    /* Both run on the worker thread, so they must be short and wait for nothing; NULL: none. */
    void (*on_token)(void *user); /* engine_tokens has grown */
    void (*on_done)(void *user);  /* once: nothing more will come; engine_wait returns as soon as every request of the ticket has said so */
    void *user;
};

/* Borrowed from the ticket. k1 = max(1, top_k). */
struct eval_result {
    int code; /* 0, or why the request failed; then only err is meaningful */
    struct err err;
    int n_scored;              /* n_tokens - score_begin */
    const float *logprobs;     /* [n_scored] natural log of the token's probability */
    const int32_t *top_ids;    /* [n_scored, k1] */
    const float *top_logprobs; /* [n_scored, k1]; a token is greedy iff its logprob == top_logprobs[.., 0] */
    int n_new;
    const int32_t *new_tokens;     /* [n_new], EOS included where it ended the generation */
    const float *new_logprobs;     /* [n_new] */
    const int32_t *new_top_ids;    /* [n_new, k1] */
    const float *new_top_logprobs; /* [n_new, k1] */
    enum finish_reason finish;
    double queued_s;                /* seconds from engine_submit to the sequence's start; -1: it never started */
    int n_rows;                     /* positions whose rows this sequence rests on */
    int rows_computed, rows_cached; /* rows run for it (again for a score included), and taken from the prefix tree */
    const int *rows_routed;         /* [n_layers] of n_rows, those that attended; all in dense layers */
    const int *rows_executed;       /* [n_layers] of n_rows, those that did not skip the layer */
    int n_routing;                  /* positions in `routing`; 0 unless want_routing */
    const uint8_t *routing;         /* [n_layers, n_routing] enum decision */
    /* NULL unless want_probs. NaN where no router was asked: layers without one, and for `probs` tokens that skip a nested layer. */
    const float *probs;      /* [n_rows, n_layers] what decided about attention: p0, of MoD a, of D-LLM p1 (docs/architectures.md) */
    const float *skip_probs; /* [n_rows, n_layers] nested layers: s0 */
};
