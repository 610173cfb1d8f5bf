/* Counting over packed decisions. */
#include "engine/memory/route_bits.h"
#include "common/err.h"
#include <stdlib.h>
#include <string.h>

int route_bits_init(struct route_bits *b, const struct route_layer *layers, int n_layers)
{
    *b = (struct route_bits){.n_layers = n_layers, .n_bytes = (n_layers + 3) / 4};
    b->unrouted = calloc(2, (size_t)b->n_bytes);
    if (!b->unrouted)
        return ERR_NOMEM;
    b->keep = b->unrouted + b->n_bytes;
    for (int l = 0; l < n_layers; l++) {
        if (!layers[l].routed)
            route_bits_set(b->unrouted, l, DECISION_ATTEND);
        if (!layers[l].routed || layers[l].keep_all)
            route_bits_set(b->keep, l, DECISION_ATTEND);
    }
    return 0;
}

void route_bits_done(struct route_bits *b)
{
    free(b->unrouted);
    memset(b, 0, sizeof(*b));
}

/* What a token did in layers 32 w .., the first layer in the lowest pair; or'ed with `with`, unless that is NULL. */
static uint64_t word_of(const struct route_bits *b, const uint8_t *route, const uint8_t *with, int w)
{
    uint64_t bits = 0;
    for (int j = 8 * w; j < b->n_bytes && j < 8 * w + 8; j++)
        bits |= (uint64_t)(route[j] | (with ? with[j] : 0)) << 8 * (j - 8 * w);
    return bits;
}

static int n_words(const struct route_bits *b)
{
    return (b->n_bytes + 7) / 8;
}

int route_bits_count_kv(const struct route_bits *b, const uint8_t *route, int n)
{
    const uint64_t high = 0xaaaaaaaaaaaaaaaau;
    int count = 0;
    for (int i = 0; i < n; i++, route += b->n_bytes)
        for (int w = 0; w < n_words(b); w++)
            count += __builtin_popcountll(word_of(b, route, b->keep, w) & high);
    return count;
}

/* count[l] += how many of n <= 255 tokens have a high bit in layer l, one of `with` included, or with `low` any bit. */
static void add_bits(const struct route_bits *b, const uint8_t *route, int n, const uint8_t *with, bool low, int *count)
{
    const uint64_t ones = 0x0101010101010101u;
    for (int w = 0; w < n_words(b); w++) {
        uint64_t sums[4] = {0}; /* byte k of sums[q] is of layer 32 w + 4 k + q */
        for (int i = 0; i < n; i++) {
            uint64_t bits = word_of(b, route + (size_t)i * (size_t)b->n_bytes, with, w);
            bits = low ? bits >> 1 | bits : bits >> 1;
            for (int q = 0; q < 4; q++)
                sums[q] += bits >> 2 * q & ones;
        }
        for (int l = 32 * w; l < b->n_layers && l < 32 * w + 32; l++)
            count[l] += (int)(sums[l % 4] >> 8 * (l % 32 / 4) & UINT8_MAX);
    }
}

static void add_all(const struct route_bits *b, const uint8_t *route, int n, const uint8_t *with, bool low, int *count)
{
    for (int done = 0; done < n; done += UINT8_MAX)
        add_bits(b, route + (size_t)done * (size_t)b->n_bytes, n - done < UINT8_MAX ? n - done : UINT8_MAX, with, low, count);
}

void route_bits_add_kv(const struct route_bits *b, const uint8_t *route, int n, int *count)
{
    add_all(b, route, n, b->keep, false, count);
}

void route_bits_add_attending(const struct route_bits *b, const uint8_t *route, int n, int *count)
{
    add_all(b, route, n, NULL, false, count);
}

void route_bits_add_executed(const struct route_bits *b, const uint8_t *route, int n, int *count)
{
    add_all(b, route, n, NULL, true, count);
}
