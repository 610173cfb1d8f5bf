/* Two bits a layer: every decision in every place of a byte, layers without a router, layers that keep K and V of all. */
#include "engine/memory/route_bits.h"
#include "tests/check.h"
#include <string.h>

enum { LAYERS = 7 };

int main(void)
{
    /* unrouted, routed, routed and keeping all, routed ... */
    struct route_layer layers[LAYERS] = {{false, false}, {true, false}, {true, true}, {true, false},
                                         {true, false},  {true, false}, {true, true}};
    struct route_bits b;
    if (!CHECK_INT(route_bits_init(&b, layers, LAYERS), 0))
        return check_result();
    CHECK_INT(b.n_bytes, 2);
    CHECK_INT(b.unrouted[0], 2);
    uint8_t rows[2][2];
    for (int i = 0; i < 2; i++)
        memcpy(rows[i], b.unrouted, 2);
    static const enum decision first[LAYERS] = {DECISION_ATTEND, DECISION_LINEAR, DECISION_SKIP,  DECISION_ATTEND,
                                                DECISION_SKIP,   DECISION_ATTEND, DECISION_LINEAR};
    for (int l = 1; l < LAYERS; l++)
        route_bits_set(rows[0], l, first[l]);
    static const bool kv[LAYERS] = {true, false, true, true, false, true, true};
    int count[LAYERS] = {0};
    route_bits_add_kv(&b, rows[0], count);
    for (int l = 0; l < LAYERS; l++) {
        CHECK_INT(route_bits_get(rows[0], l), first[l]);
        CHECK_INT(route_bits_has_kv(&b, rows[0], l), kv[l]);
        CHECK_INT(count[l], kv[l]);
    }
    CHECK_INT(route_bits_count_kv(&b, rows[0], 1), 5);
    CHECK_INT(route_bits_count_kv(&b, rows[0], 2), 5 + 3); /* the second skips wherever it may */
    route_bits_done(&b);
    route_bits_done(&b);
    return check_result();
}
