/* Two bits a layer: every decision in every place of a byte, layers without a router, layers that keep K and V of all. */
#include "engine/memory/route_bits.h"
#include "tests/check.h"
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 7, MANY_LAYERS = 75, MANY = 600 };

/* Sums over more tokens than a byte counts, and more layers than a word has, beside those of one token and layer at a time. */
static void check_many(void)
{
    struct route_layer layers[MANY_LAYERS];
    struct route_bits b;
    int count[MANY_LAYERS], want[MANY_LAYERS], attending[MANY_LAYERS] = {0}, executed[MANY_LAYERS] = {0}, total = 0;
    for (int l = 0; l < MANY_LAYERS; l++)
        layers[l] = (struct route_layer){.routed = l % 3, .keep_all = l % 5 == 1};
    if (!CHECK_INT(route_bits_init(&b, layers, MANY_LAYERS), 0))
        return;
    uint8_t *rows = calloc(MANY, (size_t)b.n_bytes);
    for (int i = 0; i < MANY; i++) {
        uint8_t *row = rows + (size_t)i * (size_t)b.n_bytes;
        memcpy(row, b.unrouted, (size_t)b.n_bytes);
        for (int l = 0; l < MANY_LAYERS; l++)
            if (layers[l].routed)
                route_bits_set(row, l, (enum decision)((i * 7 + l * l + i / 256) % 3));
    }
    for (int l = 0; l < MANY_LAYERS; l++) {
        count[l] = want[l] = l;
        for (int i = 0; i < MANY; i++)
            want[l] += route_bits_has_kv(&b, rows + (size_t)i * (size_t)b.n_bytes, l);
        total += want[l] - l;
    }
    route_bits_add_kv(&b, rows, MANY, count);
    route_bits_add_attending(&b, rows, MANY, attending);
    route_bits_add_executed(&b, rows, MANY, executed);
    for (int l = 0; l < MANY_LAYERS; l++) {
        CHECK_INT(count[l], want[l]);
        for (int i = 0; i < MANY; i++) {
            enum decision d = route_bits_get(rows + (size_t)i * (size_t)b.n_bytes, l);
            attending[l] -= d == DECISION_ATTEND;
            executed[l] -= d != DECISION_SKIP;
        }
        CHECK_INT(attending[l], 0);
        CHECK_INT(executed[l], 0);
    }
    CHECK_INT(route_bits_count_kv(&b, rows, MANY), total);
    route_bits_add_kv(&b, rows, 0, count);
    CHECK_INT(count[0], want[0]);
    free(rows);
    route_bits_done(&b);
}

int main(void)
{
    check_many();
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
    route_bits_add_kv(&b, rows[0], 1, count);
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
