#include "tests/golden/expected.h"
#include <stdio.h>

/* mode: what stands before the name. */
static const struct tensor *get(const struct safetensors *s, int i, const char *mode, const char *name)
{
    char full[64];
    snprintf(full, sizeof(full), "p%d.%s%s", i, mode, name);
    return safetensors_find(s, full);
}

static const void *data(const struct tensor *t)
{
    return t && t->n_bytes ? t->data : NULL;
}

static int rows(const struct tensor *t)
{
    return t ? (int)t->shape[0] : 0;
}

static int64_t elements(const struct tensor *t)
{
    return t ? tensor_elements(t) : 0;
}

bool expected_read(const struct safetensors *s, int i, const char *mode, struct expected *e)
{
    const struct tensor *tokens = get(s, i, "", "tokens"), *logits = get(s, i, mode, "logits"), *route = get(s, i, mode, "route"),
                        *kv = get(s, i, mode, "kv_len"), *exec = get(s, i, mode, "exec"), *conv = get(s, i, mode, "conv_state"),
                        *ssm = get(s, i, mode, "ssm_state");
    if (!tokens || !logits)
        return false;
    const char *gen = get(s, i, mode, "genfull_tokens") ? "genfull" : "gen";
    char name[3][32];
    snprintf(name[0], sizeof(name[0]), "%s_tokens", gen);
    snprintf(name[1], sizeof(name[1]), "%s_logits", gen);
    snprintf(name[2], sizeof(name[2]), "%s_route", gen);
    *e = (struct expected){
        .n_tokens = (int)tokens->shape[0],
        .n_layers = (int)kv->shape[0],
        .n_routed = rows(route),
        .n_nested = rows(exec),
        .n_states = rows(conv),
        .vocab = (int)logits->shape[1],
        .n_pos = (int)logits->shape[0],
        .n_gen = (int)get(s, i, mode, name[0])->shape[0],
        .tokens = data(tokens),
        .pos = data(get(s, i, "", "logit_pos")),
        .logits = data(logits),
        .route = data(route),
        .exec = data(exec),
        .prob = data(get(s, i, mode, "prob")),
        .exec_prob = data(get(s, i, mode, "exec_prob")),
        .gate = data(get(s, i, mode, "gate")),
        .hidden = data(get(s, i, mode, "hidden")),
        .kv_len = data(kv),
        .conv_state = data(conv),
        .ssm_state = data(ssm),
        .conv_floats = conv ? (int)(elements(conv) / conv->shape[0]) : 0,
        .ssm_floats = ssm ? (int)(elements(ssm) / ssm->shape[0]) : 0,
        .gen_tokens = data(get(s, i, mode, name[0])),
        .gen_logits = data(get(s, i, mode, name[1])),
        .gen_route = data(get(s, i, mode, name[2])),
        .gen_exec = data(get(s, i, mode, "gen_exec")),
    };
    return true;
}
