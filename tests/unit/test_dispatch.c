/* Where sequences are sent: the longest prefix first, then the least load; siblings together; away from a device that has too much to do; never to one that
 * is lost. */
#include "engine/schedule/dispatch.h"
#include "engine/schedule/queue.h"
#include "engine/schedule/ticket.h"
#include "tests/check.h"
#include <stdlib.h>

enum { ROWS = 512, LEN = 200, N = 64 };

static struct queue q;
static struct dispatch d;
static int32_t tokens[N][LEN];
static struct eval_request reqs[N];

static void begin(int n_devices, bool reuses)
{
    struct err err;
    queue_init(&q, n_devices, 1000);
    CHECK_INT(dispatch_init(&d, ROWS, reuses, &err), 0);
}

static void end(void)
{
    dispatch_done(&d);
    queue_done(&q);
}

/* Request i: its first `shared` tokens are those of request `of`, the others its own. */
static void make(int i, int of, int shared, int n)
{
    for (int t = 0; t < n; t++)
        tokens[i][t] = t < shared ? tokens[of][t] : 1000 * (i + 1) + t;
    reqs[i] = (struct eval_request){.tokens = tokens[i], .n_tokens = n, .score_begin = 1, .top_p = 1};
}

/* Sends requests i .. i+n-1 as a ticket, which the queue does not hear of: loads stay as they were set. */
static struct engine_ticket *ask(int i, int n)
{
    struct engine_ticket *t;
    CHECK_INT(ticket_new(&q, &reqs[i], n, 1, false, &t), 0);
    dispatch_ticket(&d, &q, t);
    return t;
}

static int device_of(const struct engine_ticket *t, int i)
{
    return (int)(t->seqs[i].place - t->places);
}

static int send_one(int i)
{
    struct engine_ticket *t = ask(i, 1);
    int device = device_of(t, 0);
    ticket_free(t);
    return device;
}

static void test_prefix(void)
{
    begin(3, true);
    make(0, 0, 0, LEN);
    q.dev[0].load = 50;
    q.dev[2].load = 50;
    CHECK_INT(send_one(0), 1); /* the least load */
    q.dev[1].load = 90;
    make(1, 0, 120, LEN);
    CHECK_INT(send_one(1), 1); /* its prefix is there, and a little more load is nothing */
    make(2, 1, 130, LEN);
    make(3, 3, 0, LEN);
    q.dev[0].load = 10;
    CHECK_INT(send_one(3), 0);
    CHECK_INT(send_one(2), 1);
    make(4, 3, 20, LEN); /* a short one is one too */
    q.dev[0].load = 60;
    CHECK_INT(send_one(4), 0);
    end();
}

/* The load of a sequence is what is not shared. */
static void test_load(void)
{
    begin(2, true);
    make(0, 0, 0, LEN);
    make(1, 0, 160, LEN);
    struct engine_ticket *t = ask(0, 2);
    CHECK_INT(device_of(t, 0), device_of(t, 1));
    CHECK_INT(t->seqs[0].load, LEN - 1);
    CHECK_INT(t->seqs[1].load, LEN - 1 - 160);
    ticket_free(t);
    end();
}

/* Contexts with four continuations each, in one call or in several: siblings meet, and both devices get about the same. */
static void test_siblings(void)
{
    for (int calls = 0; calls < 2; calls++) {
        int n[2] = {0};
        begin(2, true);
        for (int i = 0; i < N; i++)
            make(i, i / 4 * 4, i % 4 ? 60 : 0, 80);
        struct engine_ticket *t[N] = {calls ? NULL : ask(0, N)};
        for (int i = 0; i < N && calls; i++) {
            t[i] = ask(i, 1);
            q.dev[device_of(t[i], 0)].load += t[i]->seqs[0].load;
        }
        for (int i = 0; i < N; i++) {
            int mine = calls ? device_of(t[i], 0) : device_of(t[0], i), first = i / 4 * 4;
            CHECK_INT(mine, calls ? device_of(t[first], 0) : device_of(t[0], first));
            n[mine]++;
        }
        CHECK(n[0] >= N / 4 && n[1] >= N / 4);
        for (int i = 0; i < N && t[i]; i++)
            ticket_free(t[i]);
        end();
    }
}

/* One prefix for all: it is computed on the other device too when that is idle while much is sent past it, or far behind; then both take what comes. */
static void test_leaves(void)
{
    begin(2, true);
    make(0, 0, 0, LEN);
    for (int i = 1; i < N; i++)
        make(i, 0, 100, LEN);
    CHECK_INT(send_one(0), 0);
    q.dev[0].load = 2 * 96; /* 96 tokens of the prefix are looked up */
    for (int i = 1; i < 10; i++)
        CHECK_INT(send_one(i), 0);
    q.dev[0].load = 1000; /* each sends 103 rows past the idle one, and four times the prefix is 384 */
    q.dev[1].load = ROWS / 8;
    for (int i = 10; i < 20; i++)
        CHECK_INT(send_one(i), 0); /* it is not idle */
    q.dev[1].load--;
    for (int i = 20; i < 23; i++)
        CHECK_INT(send_one(i), 0);
    CHECK_INT(send_one(23), 1);
    q.dev[1].load = 999;
    CHECK_INT(send_one(24), 1); /* both have it, and this one less to do */
    q.dev[1].load = 4000;
    CHECK_INT(send_one(25), 0);
    end();
    begin(2, true);
    CHECK_INT(send_one(0), 0);
    q.dev[0].load = ROWS + 4 * ROWS;
    q.dev[1].load = ROWS; /* has enough to do for now */
    for (int i = 1; i < 10; i++)
        CHECK_INT(send_one(i), 0);
    q.dev[0].load += 2 * 96 + 1;
    for (int i = 10; i < 13; i++)
        CHECK_INT(send_one(i), 0);
    CHECK_INT(send_one(13), 1);
    end();
}

static void test_lost(void)
{
    begin(3, true);
    make(0, 0, 0, LEN);
    make(1, 0, 100, LEN);
    CHECK_INT(send_one(0), 0);
    q.dev[0].lost = true;
    q.dev[1].load = 10;
    CHECK_INT(send_one(1), 2);
    q.dev[1].lost = q.dev[2].lost = true;
    CHECK(send_one(1) >= 0); /* the queue refuses it */
    end();
}

static void test_no_reuse(void)
{
    begin(2, false);
    make(0, 0, 0, LEN);
    make(1, 0, 100, LEN);
    CHECK_INT(send_one(0), 0);
    q.dev[0].load = 1;
    CHECK_INT(send_one(1), 1);
    end();
}

static void test_clear(void)
{
    begin(2, true);
    make(0, 0, 0, LEN);
    CHECK_INT(send_one(0), 0);
    q.dev[0].load = 1;
    CHECK_INT(send_one(0), 0);
    dispatch_clear(&d);
    CHECK_INT(send_one(0), 1);
    end();
}

/* More prefixes than there are entries: what was sent last is found. */
static void test_many(void)
{
    begin(2, true);
    make(0, 0, 0, LEN);
    for (int i = 0; i < 200000; i++) {
        tokens[0][0] = i;
        send_one(0);
    }
    q.dev[0].load = 1;
    CHECK_INT(send_one(0), 0);
    tokens[0][0] = -1;
    CHECK_INT(send_one(0), 1);
    end();
}

int main(void)
{
    test_prefix();
    test_load();
    test_siblings();
    test_leaves();
    test_lost();
    test_no_reuse();
    test_clear();
    test_many();
    return check_result();
}
