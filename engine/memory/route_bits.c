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

int route_bits_count_kv(const struct route_bits *b, const uint8_t *route, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++, route += b->n_bytes)
        for (int j = 0; j < b->n_bytes; j++)
            count += __builtin_popcount((route[j] | b->keep[j]) & 0xaa);
    return count;
}

void route_bits_add_kv(const struct route_bits *b, const uint8_t *route, int *count)
{
    for (int l = 0; l < b->n_layers; l++)
        count[l] += route_bits_has_kv(b, route, l);
}
