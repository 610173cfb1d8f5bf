/* Clients and their flows: who gets which place, rings, and that however many clients and calls come, no more are told apart than there is
 * memory for, and all of it is free again when they have gone. */
#include "engine/schedule/clients.h"
#include "engine/schedule/ticket.h"
#include "tests/check.h"
#include <stdlib.h>

enum { ROWS = 64, CROWD = 3 * CLIENTS_MAX };

static struct clients clients;

struct guest {
    struct engine_ticket ticket;
    struct sequence seq;
};

static void come(struct guest *g, uint64_t client, uint64_t call, int64_t rows)
{
    *g = (struct guest){.ticket = {.client_id = client, .call = call, .rows = rows},
                        .seq = {.ticket = &g->ticket, .place = &g->ticket.places[0]}};
    clients_place(&clients, &g->ticket, g->seq.place, ROWS);
    clients_enter(&clients, &g->seq);
}

static void go(struct guest *g)
{
    clients_leave(&clients, &g->seq);
}

/* Flows in the order of the walk; their sequences must be all. */
static int count_flows(void)
{
    int n = 0, sequences = 0;
    for (struct flow *f = clients_next_flow(&clients, NULL); f; f = clients_next_flow(&clients, f)) {
        n++;
        sequences += f->n;
        CHECK(f->n || f == &clients.alone);
    }
    CHECK_INT(sequences, clients.n_sequences);
    return n;
}

static void test_places(void)
{
    static const struct {
        uint64_t client, call;
        int64_t rows;
        enum lane lane;
    } cases[] = {
        {1, 0, ROWS / 4, LANE_ALONE},
        {1, 0, 1, LANE_SHARED}, /* it holds another */
        {2, 0, ROWS / 4 + 1, LANE_SHARED},
        {2, 0, 4 * ROWS, LANE_SHARED},
        {2, 0, 4 * ROWS + 1, LANE_BULK},
        {2, 0, 4 * ROWS + 1, LANE_BULK}, /* a flow of its own */
        {3, 7, 1000, LANE_BULK},
        {3, 7, 1000, LANE_BULK}, /* the same */
        {4, 7, 1000, LANE_BULK}, /* calls are a client's */
        {0, 0, 1, LANE_ALONE},
        {0, 0, 1, LANE_SHARED},
    };
    enum { N = sizeof(cases) / sizeof(cases[0]) };
    struct guest g[N];
    for (size_t i = 0; i < N; i++) {
        come(&g[i], cases[i].client, cases[i].call, cases[i].rows);
        CHECK_INT(g[i].ticket.places[0].lane, cases[i].lane);
    }
    CHECK(g[4].ticket.places[0].flow != g[5].ticket.places[0].flow && g[6].ticket.places[0].flow == g[7].ticket.places[0].flow &&
          g[7].ticket.places[0].flow != g[8].ticket.places[0].flow);
    CHECK(g[2].ticket.places[0].flow == g[3].ticket.places[0].flow && g[1].ticket.places[0].flow != g[2].ticket.places[0].flow);
    CHECK_INT(count_flows(), 1 + 3 + 1 + 1 + 1 + 1); /* shared of 1; shared and two calls of 2; one of 3, of 4; shared of 0; alone */
    CHECK_INT(clients.n, 5);
    go(&g[0]);
    go(&g[1]);
    CHECK_INT(clients.n, 4);
    come(&g[0], 1, 0, 1); /* holds nothing again */
    CHECK_INT(g[0].ticket.places[0].lane, LANE_ALONE);
    go(&g[0]);
    for (size_t i = 2; i < N; i++)
        go(&g[i]);
    CHECK_INT(count_flows(), 1);
    CHECK(!clients.n && !clients.ring && !clients.n_sequences);
}

/* Hostile addresses: three times as many as are told apart, with small and with large calls. */
static void test_bound(void)
{
    struct guest *g = calloc(CROWD, sizeof(*g));
    int n_alone = 0, n_bulk = 0;
    for (int round = 0; round < 2; round++) { /* the second finds all free */
        for (int i = 0; i < CROWD; i++) {
            come(&g[i], (uint64_t)i * 0x9e3779b97f4a7c15u, 0, i % 2 ? 1 : 1000000);
            n_alone += g[i].ticket.places[0].lane == LANE_ALONE;
            n_bulk += g[i].ticket.places[0].lane == LANE_BULK;
            CHECK(g[i].ticket.places[0].client == &clients.crowd || i < CLIENTS_MAX);
        }
        CHECK_INT(n_alone, (round + 1) * CLIENTS_MAX / 2);
        CHECK_INT(n_bulk, (round + 1) * CLIENTS_CALLS);
        CHECK(count_flows() <= CLIENTS_MAX + CLIENTS_CALLS + 2);
        CHECK(clients.n <= CLIENTS_MAX + 1);
        for (int i = 0; i < CROWD; i++)
            go(&g[(i * 7) % CROWD]);
        CHECK_INT(count_flows(), 1);
        CHECK(!clients.n && !clients.n_sequences);
    }
    free(g);
}

int main(void)
{
    if (!CHECK_INT(clients_init(&clients), 0))
        return check_result();
    test_places();
    test_bound();
    clients_done(&clients);
    return check_result();
}
