/* Several devices: random traffic is answered as each request alone, each request by one device; when a device fails, at each of its calls in turn, no
 * request is lost, none is wrong, and the others go on; when all have failed, all requests end.
 *   test_replicas [SEED] */
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/unit/worker_rig.h"
#include <stdlib.h>

enum { LONGEST = (TRAFFIC_LEN + TRAFFIC_NEW - 1) * FAKE_LAYERS /* slots that one sequence may need */, ROUNDS = 200 };

static const struct worker_setting settings[] = {
    {"two devices, two steps of 40 rows", 40, 2, 20 * LONGEST, 0, true, false, 1 << 20, false, 2},
    {"four devices, two steps of 19 rows, evicting", 19, 2, LONGEST + 120, 0, true, false, 1 << 20, false, 4},
    {"three devices, no cache", 24, 2, 4 * LONGEST, 0, false, false, 1 << 20, false, 3},
    {"two devices, router states, evicting and preempting", 19, 2, LONGEST + 120, 9, true, false, 1 << 20, true, 2},
    {"two devices, whole prompts", 64, 2, 6 * LONGEST, 0, true, true, 1 << 20, false, 2},
    {"two devices, joining", 200, 2, 20 * LONGEST, 0, true, false, 1 << 20, false, 2, .branches = true},
};

static void test_traffic(uint64_t seed)
{
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct worker_rig r;
        int before = check_failures;
        traffic_seed(seed + i);
        if (!worker_rig_open(&r, &settings[i]))
            return;
        for (int round = 0; round < ROUNDS; round++)
            worker_rig_act(&r);
        worker_rig_settle(&r);
        for (int d = 0; d < r.n_devices; d++)
            CHECK(r.workers[d].counts.steps > 10);
        CHECK_INT(worker_rig_stats(&r).requests_moved, 0);
        worker_rig_close(&r);
        if (check_failures > before)
            fprintf(stderr, "  with %s, seed %llu\n", settings[i].name, (unsigned long long)(seed + i));
    }
}

/* A client's only small request starts within three steps of its device, whatever another one has on all of them. */
static void test_fair(uint64_t seed)
{
    static const struct worker_setting large = {"two devices, 160 rows", 160, 1, 60 * LONGEST, 0, true, false, 1 << 20, false, 2};
    struct worker_rig r;
    int n_begun = 0;
    traffic_seed(seed);
    if (!worker_rig_open(&r, &large))
        return;
    for (int round = 0; round < 60; round++) {
        r.client = 7;
        for (int j = 1; j < WORKER_RIG_JOBS; j++) {
            worker_rig_check(&r, j);
            if (!r.jobs[j].ticket)
                CHECK_INT(worker_rig_submit_group(&r, j, WORKER_RIG_GROUP), 0);
        }
        r.client = 8;
        CHECK_INT(worker_rig_submit_group(&r, 0, 1), 0);
        const struct engine_ticket *t = r.jobs[0].ticket;
        const struct ticket_place *at = t->seqs[0].place;
        for (int turns = 0; !queue_wait(&r.queue, r.jobs[0].ticket, 0) && CHECK(turns < 1000); turns++)
            worker_rig_turn(&r);
        if (at->began_at) { /* the tree may have had all of it */
            CHECK_INT(at->lane, LANE_ALONE);
            CHECK(at->began_at - at->submitted_at <= 3);
            n_begun++;
        }
        worker_rig_check(&r, 0);
    }
    CHECK(n_begun > 20);
    worker_rig_close(&r);
}

/* ---- one fails ---------------------------------------------------------------------------------------------------------- */
static const struct worker_setting small[] = {
    {"two devices, one step in flight", 16, 1, 2 * LONGEST, 0, true, false, 1 << 20, false, 2},
    {"three devices, two steps in flight, router states", 16, 2, 2 * LONGEST, 12, true, false, 1 << 20, false, 3},
    {"two devices, whole prompts", 64, 2, 6 * LONGEST, 0, true, true, 1 << 20, false, 2},
};

static void some_traffic(struct worker_rig *r, int want_code)
{
    for (int round = 0; round < 16; round++) {
        int j = traffic_random(WORKER_RIG_JOBS);
        worker_rig_check(r, j);
        if (!r->jobs[j].ticket)
            CHECK_INT(worker_rig_submit(r, j), want_code);
        else if (!traffic_random(6))
            worker_rig_cancel(r, j);
        for (int n = traffic_random(6); n > 0; n--)
            worker_rig_turn(r);
    }
    worker_rig_settle(r);
}

/* Returns false when the device makes fewer calls. */
static bool fail_call(const struct worker_setting *s, uint64_t seed, int device, int call, uint64_t *moved)
{
    struct worker_rig r;
    struct err err = {0};
    traffic_seed(seed);
    if (!worker_rig_open(&r, s))
        return false;
    r.x[device]->fail_at = call;
    some_traffic(&r, 0);
    bool reached = r.x[device]->n_calls >= call;
    *moved += r.workers[device].counts.requests_moved;
    CHECK_INT(queue_device_health(&r.queue, device, &err), reached ? ERR_DEVICE : 0);
    CHECK_STR(err.text, reached ? "the device was asked to fail" : "");
    CHECK_INT(queue_health(&r.queue, NULL), 0);
    CHECK_INT(r.n_unexpected, 0);
    uint64_t steps = worker_rig_stats(&r).steps;
    some_traffic(&r, 0); /* the others go on */
    CHECK(worker_rig_stats(&r).steps > steps);
    worker_rig_close(&r);
    return reached;
}

static void test_one_fails(uint64_t seed)
{
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        uint64_t moved = 0;
        int before = check_failures;
        for (int device = 0; device < 2; device++) {
            int call = 1;
            while (check_failures == before && fail_call(&small[i], seed, device, call, &moved))
                call++;
            CHECK(call > 5);
            if (check_failures > before)
                fprintf(stderr, "  with %s, call %d of device %d failing, seed %llu\n", small[i].name, call, device,
                        (unsigned long long)seed);
        }
        CHECK(moved > 20);
    }
}

/* ---- more fail ---------------------------------------------------------------------------------------------------------- */
static void test_all_fail(uint64_t seed)
{
    for (int call = 1; call < 40; call += 3) {
        struct worker_rig r;
        struct err err = {0};
        traffic_seed(seed);
        if (!worker_rig_open(&r, &small[0]))
            return;
        r.x[0]->fail_at = call;
        r.x[1]->fail_at = 2 * call;
        r.may_fail = ERR_DEVICE;
        for (int round = 0; round < 200 && queue_health(&r.queue, NULL) >= 0; round++) {
            for (int j = 0; j < WORKER_RIG_JOBS; j++) {
                worker_rig_check(&r, j);
                if (!r.jobs[j].ticket)
                    worker_rig_submit(&r, j);
            }
            worker_rig_turn(&r);
        }
        worker_rig_settle(&r);
        CHECK_INT(queue_health(&r.queue, &err), ERR_DEVICE);
        CHECK(r.n_unexpected > 0 && err.text[0]);
        CHECK_INT(worker_rig_submit(&r, 0), ERR_DEVICE);
        worker_rig_close(&r);
    }
}

/* What may be why devices fail does not take all of them with it. */
static void test_poison(uint64_t seed)
{
    static const struct worker_setting four = {"four devices", 64, 2, 20 * LONGEST, 0, true, false, 1 << 20, false, 4};
    struct worker_rig r;
    int lost = 0, n = 0;
    traffic_seed(seed);
    if (!worker_rig_open(&r, &four))
        return;
    for (int d = 0; d < 4; d++)
        r.x[d]->fail_at = 1;
    r.may_fail = ERR_DEVICE;
    while (!r.n_unexpected && CHECK(n++ < 100)) { /* some requests need no step */
        CHECK_INT(worker_rig_submit_group(&r, 0, 1), 0);
        worker_rig_settle(&r);
    }
    for (int d = 0; d < 4; d++)
        lost += r.workers[d].lost;
    CHECK_INT(lost, WORKER_LOSSES_MAX);
    for (int d = 0; d < 4; d++)
        r.x[d]->fail_at = 0;
    some_traffic(&r, 0);
    worker_rig_close(&r);
}

/* ---- with threads --------------------------------------------------------------------------------------------------------- */
static void test_threads(uint64_t seed)
{
    struct worker_rig r;
    struct err err;
    traffic_seed(seed);
    if (!worker_rig_open(&r, &small[1]))
        return;
    r.x[1]->fail_at = 30;
    for (int d = 0; d < r.n_devices; d++)
        CHECK_INT(worker_start(&r.workers[d], &err), 0);
    for (int round = 0; round < 12; round++) {
        for (int j = 0; j < WORKER_RIG_JOBS; j++)
            CHECK_INT(worker_rig_submit(&r, j), 0);
        worker_rig_cancel(&r, round % WORKER_RIG_JOBS);
        if (round % 4 == 3)
            queue_clear_cache(&r.queue);
        for (int j = 0; j < WORKER_RIG_JOBS; j++) {
            CHECK(queue_wait(&r.queue, r.jobs[j].ticket, -1));
            worker_rig_check(&r, j);
        }
    }
    CHECK_INT(queue_health(&r.queue, NULL), 0);
    CHECK_INT(queue_device_health(&r.queue, 1, NULL), ERR_DEVICE);
    for (int d = 0; d < r.n_devices; d++) {
        worker_close(&r.workers[d]);
        CHECK_INT(r.x[d]->n_breaches, 0);
        fake_executor_close(r.x[d]);
    }
    queue_done(&r.queue);
    dispatch_done(&r.dispatch);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    failing_init();
    test_traffic(seed);
    test_fair(seed);
    test_one_fails(seed);
    test_all_fail(seed);
    test_poison(seed);
    test_threads(seed);
    return check_result();
}
