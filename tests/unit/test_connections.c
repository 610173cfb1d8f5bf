/* Places, who gives way, and deadlines, on a clock of the test's own. */
#include "server/http/connections.h"
#include "tests/check.h"
#include "tests/unit/tcp_pair.h"
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>

#define N 6

static struct connections *table;
static struct connection *one[N];
static int fd[N][2], offered;

static void on_room(void *user)
{
    offered++;
}

static void begin(int max)
{
    const struct connections_limits limits = {
        .max = max, .header_s = 20, .idle_s = 300, .period_s = 30, .min_rate = 1000, .on_room = on_room};
    struct err err;
    CHECK_INT(connections_open(&limits, &table, &err), 0);
    offered = 0;
}

static void add(int i)
{
    tcp_pair(fd[i]);
    one[i] = connections_add(table, fd[i][0]);
    CHECK(one[i] != NULL);
}

static void take_away(int i)
{
    connections_remove(table, one[i]);
    close(fd[i][0]);
    close(fd[i][1]);
    one[i] = NULL;
}

static void end(void)
{
    for (int i = 0; i < N; i++)
        if (one[i])
            take_away(i);
    connections_close(table);
}

/* Has connection i been told to close? Then its client sees the end, though not always at once. */
static bool closed(int i)
{
    struct pollfd here = {.fd = fd[i][0], .events = POLLRDHUP}, there = {.fd = fd[i][1], .events = POLLRDHUP};
    return poll(&here, 1, 0) == 1 && poll(&there, 1, 60000) == 1;
}

static void enter(int i, enum connection_phase phase)
{
    connections_enter(table, one[i], phase);
}

static void test_number(void)
{
    int most;
    begin(4);
    CHECK_INT(connections_number(table, &most), 0);
    for (int i = 0; i < 3; i++)
        add(i);
    take_away(1);
    CHECK_INT(connections_number(table, &most), 2);
    CHECK_INT(most, 3);
    take_away(0);
    CHECK_INT(connections_number(table, &most), 1);
    CHECK_INT(most, 2); /* those that were there when it was asked last */
    end();
}

static void test_giving_way(void)
{
    begin(3);
    for (int i = 0; i < 3; i++) {
        CHECK(connections_room(table));
        add(i);
        CHECK(!connections_spare(one[i]));
    }
    enter(0, CONNECTION_WORK);
    enter(1, CONNECTION_IDLE);
    enter(2, CONNECTION_ANSWER);
    CHECK(connections_room(table)); /* the idle one gives way */
    CHECK(closed(1) && !closed(0) && !closed(2));
    CHECK(!connections_enter(table, one[1], CONNECTION_WORK)); /* and is told */
    add(3);
    CHECK(!connections_spare(one[3]));
    enter(3, CONNECTION_WORK);
    CHECK(connections_room(table)); /* all work: a spare one, for probes */
    add(4);
    CHECK(connections_spare(one[4]));
    CHECK(connections_room(table)); /* there are more */
    CHECK(!closed(4));
    end();
}

static void test_order(void)
{
    begin(4);
    for (int i = 0; i < 4; i++)
        add(i);
    enter(0, CONNECTION_BODY);
    enter(1, CONNECTION_REFUSED);
    enter(2, CONNECTION_IDLE);
    CHECK_INT(send(fd[2][1], "G", 1, 0), 1);
    struct pollfd come = {.fd = fd[2][0], .events = POLLIN};
    CHECK_INT(poll(&come, 1, -1), 1);
    enter(3, CONNECTION_WORK);
    CHECK(connections_give_way(table));
    CHECK(closed(1) && !closed(2));         /* the idle one has just got a request */
    connections_received(table, one[0], 1); /* within the last second */
    CHECK(!connections_give_way(table));    /* bodies that come, and work, stay */
    CHECK(!closed(0) && !closed(3));
    connections_enter(table, one[3], CONNECTION_IDLE);
    CHECK_INT(offered, 1); /* whoever asked in vain is told */
    CHECK(connections_give_way(table) && closed(3));
    end();
}

static void test_no_room(void)
{
    begin(1);
    struct connection *many[CONNECTIONS_SPARE + 1];
    int pair[2];
    tcp_pair(pair);
    for (int i = 0; i <= CONNECTIONS_SPARE; i++) {
        CHECK(connections_room(table));
        many[i] = connections_add(table, pair[0]);
        connections_enter(table, many[i], CONNECTION_WORK);
        CHECK_INT(connections_spare(many[i]), i > 0);
    }
    CHECK(!connections_room(table));
    CHECK_INT(offered, 0);
    connections_remove(table, many[0]);
    CHECK_INT(offered, 1);
    CHECK(connections_room(table));
    many[0] = connections_add(table, pair[0]);
    connections_enter(table, many[0], CONNECTION_WORK);
    connections_enter(table, many[5], CONNECTION_OPENING);
    CHECK(connections_room(table)); /* a spare one without a request gives way to the next */
    CHECK(!connections_enter(table, many[5], CONNECTION_WORK));
    for (int i = 0; i <= CONNECTIONS_SPARE; i++)
        connections_remove(table, many[i]);
    close(pair[0]);
    close(pair[1]);
    end();
}

/* Accepted ones count before another thread adds them. */
static void test_coming(void)
{
    begin(1);
    int n = 0, pair[2];
    tcp_pair(pair);
    for (; n < 1000 && connections_room(table); n++)
        connections_coming(table);
    CHECK_INT(n, 1 + CONNECTIONS_SPARE);
    struct connection *first = connections_add(table, pair[0]);
    CHECK(!connections_spare(first));
    connections_enter(table, first, CONNECTION_WORK);
    CHECK(!connections_room(table));
    connections_not_coming(table);
    CHECK(connections_room(table));
    connections_coming(table);
    CHECK(!connections_room(table));
    connections_remove(table, first);
    CHECK(connections_room(table));
    close(pair[0]);
    close(pair[1]);
    end();
}

struct waiter {
    struct connection *one;
    pthread_t thread;
    bool got;
};

static void *take_place(void *user)
{
    struct waiter *w = user;
    w->got = connections_take_place(table, w->one);
    return NULL;
}

static void test_places(void)
{
    struct waiter w[CONNECTIONS_WAITING];
    begin(1);
    add(0);
    enter(0, CONNECTION_WORK);
    CHECK(connections_take_place(table, one[0])); /* it has one */
    for (int i = 0; i < CONNECTIONS_WAITING; i++) {
        tcp_pair(fd[1]);
        w[i] = (struct waiter){.one = connections_add(table, fd[1][0])};
        close(fd[1][1]);
        CHECK(connections_spare(w[i].one));
        CHECK_INT(pthread_create(&w[i].thread, NULL, take_place, &w[i]), 0);
        while (connections_waiting(table) <= i)
            sched_yield();
    }
    add(2);
    CHECK(!connections_take_place(table, one[2])); /* enough wait */
    take_away(0);
    for (int i = 0; i < CONNECTIONS_WAITING; i++) { /* one after the other, in whatever order */
        while (connections_waiting(table) > CONNECTIONS_WAITING - 1 - i)
            sched_yield();
        for (int k = 0; k < CONNECTIONS_WAITING; k++)
            if (w[k].one && !connections_spare(w[k].one)) {
                pthread_join(w[k].thread, NULL);
                CHECK(w[k].got);
                connections_remove(table, w[k].one);
                w[k].one = NULL;
            }
    }
    end();
}

static void test_deadlines(void)
{
    static const struct {
        enum connection_phase phase;
        int bytes, stays_s, goes_s; /* -1: for ever */
    } cases[] = {
        {CONNECTION_OPENING, 0, 19, 21},  {CONNECTION_HEADERS, 0, 19, 21},   {CONNECTION_REFUSED, 9, 19, 21},
        {CONNECTION_IDLE, 0, 299, 301},   {CONNECTION_BODY, 0, 29, 31},      {CONNECTION_BODY, 29999, 29, 31},
        {CONNECTION_BODY, 30000, 31, 62}, {CONNECTION_WORK, 0, 1000000, -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        long long before, after; /* the phase begins between them */
        do {
            begin(3);
            add(0);
            before = connections_clock();
            enter(0, cases[i].phase);
            after = connections_clock();
            if (after - before >= 1000)
                end();
        } while (after - before >= 1000);
        if (cases[i].bytes)
            connections_received(table, one[0], (size_t)cases[i].bytes);
        CHECK_INT(connections_sweep(table, before + 1000ll * cases[i].stays_s), 0);
        CHECK(!closed(0));
        if (cases[i].goes_s >= 0 && !CHECK_INT(connections_sweep(table, after + 1000ll * cases[i].goes_s), 1))
            fprintf(stderr, "  case %zu\n", i);
        CHECK_INT(closed(0), cases[i].goes_s >= 0);
        end();
    }
}

/* An answer: what counts is what the client's machine has acknowledged. */
static void test_answers(void)
{
    static char bytes[1 << 16];
    begin(3);
    add(0);
    enter(0, CONNECTION_ANSWER);
    long long now = connections_clock();
    CHECK_INT(connections_sweep(table, now + 1000000), 0); /* a stream that waits for tokens owes nothing */
    CHECK_INT(connections_sweep(table, now + 2000000), 0);
    for (bool full = false; !full;) { /* until the client's window is, and nothing is on its way there or back */
        struct tcp_info info = {0};
        socklen_t len = sizeof(info);
        if (!CHECK_INT(getsockopt(fd[0][0], IPPROTO_TCP, TCP_INFO, &info, &len), 0))
            break;
        full = send(fd[0][0], bytes, sizeof(bytes), MSG_DONTWAIT) <= 0 && !info.tcpi_unacked;
    }
    CHECK_INT(connections_sweep(table, now + 2001000), 0);
    CHECK_INT(connections_sweep(table, now + 2031000), 0); /* what the kernels took was enough for the first period */
    CHECK(!closed(0));
    CHECK_INT(connections_sweep(table, now + 2062000), 1);
    end();
}

int main(void)
{
    test_number();
    test_giving_way();
    test_order();
    test_no_room();
    test_coming();
    test_places();
    test_deadlines();
    test_answers();
    return check_result();
}
