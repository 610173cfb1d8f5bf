#include "tests/golden/expected.h"
#include <stdio.h>

static const struct tensor *get(const struct safetensors *s, int i, const char *name)
{
    char full[64];
    snprintf(full, sizeof(full), "p%d.%s", i, name);
    return safetensors_find(s, full);
}

static const void *data(const struct tensor *t)
{
    return t && t->n_bytes ? t->data : NULL;
}

bool expected_read(const struct safetensors *s, int i, struct expected *e)
{
    const struct tensor *tokens = get(s, i, "tokens"), *logits = get(s, i, "logits"), *route = get(s, i, "route"),
                        *kv = get(s, i, "kv_len");
    if (!tokens)
        return false;
    const char *gen = get(s, i, "genfull_tokens") ? "genfull" : "gen";
    char name[3][32];
    snprintf(name[0], sizeof(name[0]), "%s_tokens", gen);
    snprintf(name[1], sizeof(name[1]), "%s_logits", gen);
    snprintf(name[2], sizeof(name[2]), "%s_route", gen);
    *e = (struct expected){
        .n_tokens = (int)tokens->shape[0],
        .n_layers = (int)kv->shape[0],
        .n_routed = route ? (int)route->shape[0] : 0,
        .vocab = (int)logits->shape[1],
        .n_pos = (int)logits->shape[0],
        .n_gen = (int)get(s, i, name[0])->shape[0],
        .tokens = data(tokens),
        .pos = data(get(s, i, "logit_pos")),
        .logits = data(logits),
        .route = data(route),
        .prob = data(get(s, i, "prob")),
        .gate = data(get(s, i, "gate")),
        .hidden = data(get(s, i, "hidden")),
        .kv_len = data(kv),
        .gen_tokens = data(get(s, i, name[0])),
        .gen_logits = data(get(s, i, name[1])),
        .gen_route = data(get(s, i, name[2])),
    };
    return true;
}
