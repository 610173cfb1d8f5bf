/* One prompt of a golden model's expected.safetensors (README.md beside this file). */
#pragma once
#include "engine/checkpoint/safetensors.h"
#include <stdbool.h>
#include <stdint.h>

struct expected {
    int n_tokens, n_layers, n_routed, vocab, n_pos, n_gen;
    const int32_t *tokens;     /* [n_tokens] */
    const int32_t *pos;        /* [n_pos] */
    const float *logits;       /* [n_pos, vocab] */
    const uint8_t *route;      /* [n_routed, n_tokens]; NULL where no layer is routed */
    const float *prob;         /* [n_routed, n_tokens] */
    const float *gate;         /* [n_routed, n_tokens] MoD; else NULL */
    const float *hidden;       /* [n_layers + 1, n_tokens, hidden] short prompts; else NULL */
    const int32_t *kv_len;     /* [n_layers] */
    const int32_t *gen_tokens; /* [n_gen]; D-LLM: by whole recomputation, which is how the engine decodes */
    const float *gen_logits;   /* [n_gen, vocab] */
    const uint8_t *gen_route;  /* [n_routed, n_gen - 1] */
};

/* false: there is no prompt i. */
bool expected_read(const struct safetensors *s, int i, struct expected *ret);
