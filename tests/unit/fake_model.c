/* See fake_model.h. */
#include "tests/unit/fake_model.h"
#include <stddef.h>

const struct route_layer *fake_model_layers(struct fake_kind kind)
{
    static const struct route_layer layers[2][FAKE_LAYERS] = {
        {{.routed = false}, {.routed = true}, {.routed = true, .keep_all = true}, {.routed = true, .nested = true}, {.routed = false}},
        {{.routed = false},
         {.routed = true},
         {.routed = true, .keep_all = true},
         {.routed = true, .nested = true, .n_states = 1},
         {.routed = false}},
    };
    return layers[kind.states];
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

uint64_t fake_model_first_state(struct fake_kind kind)
{
    return kind.states;
}

uint64_t fake_model_next_state(uint64_t state, int token)
{
    return state ? mix(state, (uint64_t)token) | 1 : 0;
}

uint64_t fake_model_prompt(const int32_t *tokens, int n)
{
    uint64_t h = 7;
    for (int i = 0; i < n; i++)
        h = mix(h, (uint64_t)tokens[i]);
    return h | 1;
}

uint64_t fake_model_context(uint64_t state, uint64_t prompt)
{
    return prompt ? mix(state, prompt) : state;
}

enum decision fake_model_decision(int token, int layer, uint64_t context)
{
    const struct route_layer *l = &fake_model_layers((struct fake_kind){0})[layer];
    uint64_t h = mix(mix(1, (uint64_t)token), (uint64_t)layer) >> 32;
    if (!l->routed)
        return DECISION_ATTEND;
    if (layer == 3)
        return (enum decision)((mix(h, context) >> 32) % 3);
    return h & 1 ? DECISION_ATTEND : l->keep_all ? DECISION_SKIP : DECISION_LINEAR;
}

bool fake_model_leaves_kv(int token, int layer, uint64_t context)
{
    return layer == 2 || fake_model_decision(token, layer, context) == DECISION_ATTEND;
}

uint64_t fake_model_begin(int token, int pos, uint64_t context)
{
    return mix(mix(mix(2, (uint64_t)token), (uint64_t)pos), context);
}

uint64_t fake_model_see(uint64_t row, int token, int pos, int layer)
{
    return mix(row, (uint64_t)(unsigned)token | (uint64_t)(unsigned)pos << 24 | (uint64_t)(unsigned)layer << 56);
}

void fake_model_contexts(const struct fake_sequence *s, int n, uint64_t *ret)
{
    uint64_t state = fake_model_first_state(s->kind);
    uint64_t prompt = s->kind.whole ? fake_model_prompt(s->tokens, s->n_prompt) : 0, after = s->kind.whole ? fake_model_prompt(NULL, 0) : 0;
    for (int p = 0; p < n; p++) {
        ret[p] = fake_model_context(state, p < s->n_prompt ? prompt : after);
        state = fake_model_next_state(state, s->tokens[p]);
    }
}

uint64_t fake_model_row(const struct fake_sequence *s, int pos)
{
    uint64_t contexts[FAKE_LONGEST];
    fake_model_contexts(s, pos + 1, contexts);
    uint64_t row = fake_model_begin(s->tokens[pos], pos, contexts[pos]);
    for (int l = 0; l < FAKE_LAYERS; l++)
        for (int p = 0; p <= pos; p++)
            if (fake_model_leaves_kv(s->tokens[p], l, contexts[p]))
                row = fake_model_see(row, s->tokens[p], p, l);
    return row;
}

/* 24 bits of a hash as a float in (-1, 0]. */
static float fraction(uint64_t h)
{
    return -(float)(h >> 40) * 0x1p-24f;
}

float fake_model_logprob(uint64_t row, int target)
{
    return 8 * fraction(mix(mix(row, 3), (uint64_t)target));
}

int fake_model_top_id(uint64_t row, int rank)
{
    return (int)((mix(mix(row, 4), (uint64_t)rank) >> 32) % FAKE_GOOD);
}

float fake_model_prob(int token, int layer, uint64_t context, bool skip)
{
    return -fraction(mix(mix(mix(7 + skip, (uint64_t)token), (uint64_t)layer), context));
}

float fake_model_top_logprob(uint64_t row, int rank)
{
    return fraction(mix(mix(row, 5), (uint64_t)rank)) - (float)rank;
}

int fake_model_draw(uint64_t row, const struct sampler_params *p, uint64_t index)
{
    return (int)((mix(mix(mix(row, 6), p->seed), index) >> 32) % FAKE_GOOD);
}
