/* A model without numbers: what a token does in each layer is a hash of token and layer, and what a row predicts is a hash over all keys that the row
 * sees, in order. fake_executor.h reads the keys through block tables and slots; fake_model_row needs the tokens alone. So whatever a scheduler does
 * wrong with a slot, a table, a key count or an order gives a row another hash than it has here.
 *
 * With router states, a row depends on the state that the tokens before it left, and so does its decision in one layer. States are never 0; a model
 * without them has 0 everywhere. */
#pragma once
#include "engine/memory/route_bits.h"
#include "engine/model/sampler.h"

#define FAKE_LAYERS 5
#define FAKE_VOCAB 40
#define FAKE_BAD_TOKEN (FAKE_VOCAB - 1) /* the logits of its rows are not finite; it is never predicted */

/* Without a router; linear or attending; skipping or attending, with keys of all tokens; all three, by the state; without. */
extern const struct route_layer fake_model_layers[FAKE_LAYERS];

uint64_t fake_model_first_state(bool states); /* before position 0 */
uint64_t fake_model_next_state(uint64_t state, int token);

/* state: the one before the token. */
enum decision fake_model_decision(int token, int layer, uint64_t state);
bool fake_model_leaves_kv(int token, int layer, uint64_t state);

/* A row's hash is begun with its own token, position and state, and takes in the keys of layer 0, layer 1 ..., each in position order. */
uint64_t fake_model_begin(int token, int pos, uint64_t state);
uint64_t fake_model_see(uint64_t row, int token, int pos, int layer);
/* The finished hash of row `pos` of a sequence. */
uint64_t fake_model_row(const int32_t *tokens, int pos, bool states);

/* What a row predicts: the logprob of any token, the alternatives by rank (0 is the greedy choice), and the token that is drawn. */
float fake_model_logprob(uint64_t row, int target);
int fake_model_top_id(uint64_t row, int rank);
float fake_model_top_logprob(uint64_t row, int rank);
int fake_model_draw(uint64_t row, const struct sampler_params *p, uint64_t index);
