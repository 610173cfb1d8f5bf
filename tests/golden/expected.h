/* One prompt of a golden model's expected.safetensors (README.md beside this file and in tests/ultradeep). */
#pragma once
#include "engine/checkpoint/safetensors.h"
#include <stdbool.h>
#include <stdint.h>

struct expected {
    int n_tokens, n_layers, n_routed, n_nested, vocab, n_pos, n_gen;
    int n_states, conv_floats, ssm_floats; /* recurrent routers whose states are told, and the size of each part */
    const int32_t *tokens;                 /* [n_tokens] */
    const int32_t *pos;                    /* [n_pos] */
    const float *logits;                   /* [n_pos, vocab] */
    const uint8_t *route;                  /* [n_routed, n_tokens]; NULL where no layer is routed */
    const uint8_t *exec;                   /* [n_nested, n_tokens]; NULL where no layer is nested */
    const float *prob;                     /* [n_routed, n_tokens]; in nested layers 0 for tokens that are skipped */
    const float *exec_prob;                /* [n_nested, n_tokens] */
    const float *gate;                     /* [n_routed, n_tokens] MoD; else NULL */
    const float *hidden;                   /* [n_layers + 1, n_tokens, hidden] short prompts; else NULL */
    const int32_t *kv_len;                 /* [n_layers] */
    const float *conv_state, *ssm_state;   /* [n_states, conv_floats], [n_states, ssm_floats] after the prompt; short prompts; else NULL */
    const int32_t *gen_tokens;             /* [n_gen]; D-LLM: by whole recomputation, which is how the engine decodes */
    const float *gen_logits;               /* [n_gen, vocab] */
    const uint8_t *gen_route;              /* [n_routed, n_gen - 1] */
    const uint8_t *gen_exec;               /* [n_nested, n_gen - 1] */
};

/* mode: "", or "thr_" for expert choice by thresholds. false: there is no prompt i of that mode. */
bool expected_read(const struct safetensors *s, int i, const char *mode, struct expected *ret);
