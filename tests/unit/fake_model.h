/* A model without numbers: what a token does in each layer is a hash of token and layer, and what a row predicts is a hash over all keys that the row
 * sees, in order. fake_executor.h reads the keys through block tables and slots; fake_model_row needs the tokens alone. So whatever a scheduler does
 * wrong with a slot, a table, a key count or an order gives a row another hash than it has here.
 *
 * A row also depends on a context, and so does its decision in one layer: with router states on the tokens before it, and where selectors see the whole
 * prompt on that. A model without either has context 0 everywhere. */
#pragma once
#include "engine/memory/route_bits.h"
#include "engine/model/sampler.h"

#define FAKE_LAYERS 5    /* without a router; linear or attending; skipping or attending, with keys of all tokens; all three; without */
#define FAKE_LONGEST 128 /* rows of a sequence at most */
#define FAKE_VOCAB 40
/* The logits of its rows are not finite; with router states, those after it are not. Neither is ever predicted. */
#define FAKE_BAD_TOKEN (FAKE_VOCAB - 1)
#define FAKE_BAD_STATE (FAKE_VOCAB - 2)
#define FAKE_GOOD (FAKE_VOCAB - 2) /* how many tokens do nothing of that */

/* What a model's routers look at beside a token. */
struct fake_kind {
    bool states; /* a state that earlier tokens left; executor_limits.n_state_slots > 0 */
    bool whole;  /* the prompt that is computed in one run; executor_limits.whole_prompts */
};

/* The tables of layers: with router states, layer 3 has one. */
const struct route_layer *fake_model_layers(struct fake_kind kind);

/* A state is never 0, and without states it is always 0. */
uint64_t fake_model_first_state(struct fake_kind kind); /* before position 0 */
uint64_t fake_model_next_state(uint64_t state, int token);
/* Of a whole prompt; of rows after it (n = 0). */
uint64_t fake_model_prompt(const int32_t *tokens, int n);
/* Of the row whose tokens before it left `state`. prompt: 0 where selectors do not see it. */
uint64_t fake_model_context(uint64_t state, uint64_t prompt);

enum decision fake_model_decision(int token, int layer, uint64_t context);
bool fake_model_leaves_kv(int token, int layer, uint64_t context);

/* A row's hash is begun with its own token, position and context, and takes in the keys of layer 0, layer 1 ..., each in position order. */
uint64_t fake_model_begin(int token, int pos, uint64_t context);
uint64_t fake_model_see(uint64_t row, int token, int pos, int layer);

/* A sequence from its tokens alone. */
struct fake_sequence {
    struct fake_kind kind;
    const int32_t *tokens;
    int n_prompt; /* rows that the selectors of `whole` see together */
};

/* ret: [n] the contexts of rows 0 .. n-1. */
void fake_model_contexts(const struct fake_sequence *s, int n, uint64_t *ret);
/* The finished hash of row `pos`. */
uint64_t fake_model_row(const struct fake_sequence *s, int pos);

/* What a row predicts: the logprob of any token, the alternatives by rank (0 is the greedy choice), and the token that is drawn. */
float fake_model_logprob(uint64_t row, int target);
int fake_model_top_id(uint64_t row, int rank);
float fake_model_top_logprob(uint64_t row, int rank);
float fake_model_prob(int token, int layer, uint64_t context, bool skip); /* what the router, or the skip router, compared */
int fake_model_draw(uint64_t row, const struct sampler_params *p, uint64_t index);
