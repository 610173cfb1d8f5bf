/* What a token did in each layer, packed: 2 bits a layer (enum decision, kernels/decision.h), layer l in bits 2 (l % 4) of byte l / 4. The high bit
 * of a pair says "attends". Layers without a router hold DECISION_ATTEND. */
#pragma once
#include "kernels/decision.h"
#include <stdbool.h>
#include <stdint.h>

struct route_layer {
    bool routed;   /* a router decides; else every token attends */
    bool keep_all; /* tokens that do not attend leave K and V too */
    bool nested;   /* a router of its own says who skips it, before the other is asked */
    int n_states;  /* routers of the layer that keep a state of the sequence */
};

struct route_bits {
    int n_layers, n_bytes;
    uint8_t *unrouted; /* [n_bytes] the bits of layers without a router; 0 in the others */
    uint8_t *keep;     /* [n_bytes] the high bit of every layer in which all tokens have K and V */
};

/* layers: [n_layers]. On ERR_NOMEM nothing is left behind. */
int route_bits_init(struct route_bits *b, const struct route_layer *layers, int n_layers);
void route_bits_done(struct route_bits *b); /* copes with a zeroed struct */

static inline enum decision route_bits_get(const uint8_t *route, int l)
{
    return (enum decision)(route[l >> 2] >> (2 * (l & 3)) & 3);
}

/* Sets a pair that is 0 so far. */
static inline void route_bits_set(uint8_t *route, int l, enum decision d)
{
    route[l >> 2] |= (uint8_t)(d << (2 * (l & 3)));
}

/* Does the token have K and V in layer l? */
static inline bool route_bits_has_kv(const struct route_bits *b, const uint8_t *route, int l)
{
    return (route[l >> 2] | b->keep[l >> 2]) >> (2 * (l & 3) + 1) & 1;
}

/* Rows of K and V that n tokens have, route [n, n_bytes]. */
int route_bits_count_kv(const struct route_bits *b, const uint8_t *route, int n);
/* count[l] += those of n tokens that have K and V in layer l; route: as above. */
void route_bits_add_kv(const struct route_bits *b, const uint8_t *route, int n, int *count);
/* Likewise of those that attend in layer l, and of those that do not skip it. */
void route_bits_add_attending(const struct route_bits *b, const uint8_t *route, int n, int *count);
void route_bits_add_executed(const struct route_bits *b, const uint8_t *route, int n, int *count);
