/* See fake_model.h. */
#include "tests/unit/fake_model.h"

const struct route_layer fake_model_layers[FAKE_LAYERS] = {
    {.routed = false}, {.routed = true}, {.routed = true, .keep_all = true}, {.routed = true}, {.routed = false}};

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

uint64_t fake_model_first_state(bool states)
{
    return states;
}

uint64_t fake_model_next_state(uint64_t state, int token)
{
    return state ? mix(state, (uint64_t)token) | 1 : 0;
}

enum decision fake_model_decision(int token, int layer, uint64_t state)
{
    uint64_t h = mix(mix(1, (uint64_t)token), (uint64_t)layer) >> 32;
    if (!fake_model_layers[layer].routed)
        return DECISION_ATTEND;
    if (layer == 3)
        return (enum decision)((mix(h, state) >> 32) % 3);
    return h & 1 ? DECISION_ATTEND : fake_model_layers[layer].keep_all ? DECISION_SKIP : DECISION_LINEAR;
}

bool fake_model_leaves_kv(int token, int layer, uint64_t state)
{
    return fake_model_layers[layer].keep_all || fake_model_decision(token, layer, state) == DECISION_ATTEND;
}

uint64_t fake_model_begin(int token, int pos, uint64_t state)
{
    return mix(mix(mix(2, (uint64_t)token), (uint64_t)pos), state);
}

uint64_t fake_model_see(uint64_t row, int token, int pos, int layer)
{
    return mix(row, (uint64_t)(unsigned)token | (uint64_t)(unsigned)pos << 24 | (uint64_t)(unsigned)layer << 56);
}

uint64_t fake_model_row(const int32_t *tokens, int pos, bool states)
{
    uint64_t before = fake_model_first_state(states);
    for (int p = 0; p < pos; p++)
        before = fake_model_next_state(before, tokens[p]);
    uint64_t row = fake_model_begin(tokens[pos], pos, before);
    for (int l = 0; l < FAKE_LAYERS; l++) {
        uint64_t state = fake_model_first_state(states);
        for (int p = 0; p <= pos; p++) {
            if (fake_model_leaves_kv(tokens[p], l, state))
                row = fake_model_see(row, tokens[p], p, l);
            state = fake_model_next_state(state, tokens[p]);
        }
    }
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
    return (int)((mix(mix(row, 4), (uint64_t)rank) >> 32) % FAKE_BAD_TOKEN);
}

float fake_model_top_logprob(uint64_t row, int rank)
{
    return fraction(mix(mix(row, 5), (uint64_t)rank)) - (float)rank;
}

int fake_model_draw(uint64_t row, const struct sampler_params *p, uint64_t index)
{
    return (int)((mix(mix(mix(row, 6), p->seed), index) >> 32) % FAKE_BAD_TOKEN);
}
