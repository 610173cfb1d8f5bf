/* The worker, turn by turn without a thread: random traffic is answered as fake_model.h answers each request alone, whatever runs beside it, with one
 * and two steps in flight and pools that evict; and when the executor or an allocation fails, in each place in turn, all requests end and all
 * slots come back.
 *   test_worker [SEED] */
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/unit/worker_rig.h"
#include <sched.h>
#include <stdlib.h>

enum { LONGEST = (TRAFFIC_LEN + TRAFFIC_NEW - 1) * FAKE_LAYERS /* slots that one sequence may need */, ROUNDS = 200 };

static const struct worker_setting settings[] = {
    {"two steps of 40 rows", 40, 2, 20 * LONGEST, 0, true, false, 1 << 20},
    {"two steps of 19 rows, evicting", 19, 2, LONGEST + 120, 0, true, false, 1 << 20},
    {"two steps of 24 rows, no cache", 24, 2, 4 * LONGEST, 0, false, false, 1 << 20},
    {"one step of 128 rows, evicting", 128, 1, 3 * LONGEST, 0, true, false, 1 << 20},
    {"two steps of 40 rows, a tree of few bytes", 40, 2, 20 * LONGEST, 0, true, false, 6000},
    {"two steps of 3 rows, just room for one sequence", 3, 2, LONGEST, 0, true, false, 1 << 20},
    {"router states, two steps of 40 rows", 40, 2, 20 * LONGEST, 400, true, false, 1 << 20},
    {"router states, few places, evicting", 19, 2, LONGEST + 120, 9, true, false, 1 << 20},
    {"router states, one place", 30, 1, 4 * LONGEST, 1, true, false, 1 << 20},
    {"router states, no cache", 24, 2, 4 * LONGEST, 20, false, false, 1 << 20},
    {"whole prompts, two steps of 64 rows", 64, 2, 6 * LONGEST, 0, true, true, 1 << 20},
    {"whole prompts and router states, steps as long as a sequence", TRAFFIC_LEN, 2, 3 * LONGEST, 5, true, true, 1 << 20},
    {"two steps of 40 rows, preempting", 40, 2, 20 * LONGEST, 0, true, false, 1 << 20, true},
    {"one step of 19 rows, evicting and preempting", 19, 1, LONGEST + 120, 0, true, false, 1 << 20, true},
    {"two steps of 24 rows, no cache, preempting", 24, 2, 4 * LONGEST, 0, false, false, 1 << 20, true},
    {"router states, few places, evicting and preempting", 19, 2, LONGEST + 120, 9, true, false, 1 << 20, true},
    {"whole prompts and router states, preempting", 64, 2, 6 * LONGEST, 9, true, true, 1 << 20, true},
    {"following, two steps of 40 rows", 40, 2, 20 * LONGEST, 0, true, false, 1 << 20, .follows = true},
    {"following, two steps of 19 rows, evicting", 19, 2, LONGEST + 120, 0, true, false, 1 << 20, .follows = true},
    {"following, two steps of 24 rows, no cache", 24, 2, 4 * LONGEST, 0, false, false, 1 << 20, .follows = true},
    {"following, two steps of 3 rows, just room for one sequence", 3, 2, LONGEST, 0, true, false, 1 << 20, .follows = true},
    {"following, router states, two steps of 40 rows", 40, 2, 20 * LONGEST, 400, true, false, 1 << 20, .follows = true},
    {"following, router states, few places, evicting", 19, 2, LONGEST + 120, 9, true, false, 1 << 20, .follows = true},
    {"following, two steps of 40 rows, preempting", 40, 2, 20 * LONGEST, 0, true, false, 1 << 20, true, .follows = true},
    {"following, router states, few places, evicting and preempting", 19, 2, LONGEST + 120, 9, true, false, 1 << 20, true, .follows = true},
    {"joining, one step of 300 rows", 300, 1, 20 * LONGEST, 0, true, false, 1 << 20, .branches = true},
    {"joining, two steps of 128 rows, evicting", 128, 2, 3 * LONGEST, 0, true, false, 1 << 20, .branches = true},
    {"joining, two steps of 40 rows, a tree of few bytes", 40, 2, 20 * LONGEST, 0, true, false, 6000, .branches = true},
    {"joining, two steps of 100 rows, preempting", 100, 2, 20 * LONGEST, 0, true, false, 1 << 20, true, .branches = true},
    {"joining, no cache", 100, 2, 20 * LONGEST, 0, false, false, 1 << 20, .branches = true},
    {"joining and following, two steps of 100 rows", 100, 2, 20 * LONGEST, 0, true, false, 1 << 20, .follows = true, .branches = true},
    {"joining and following, evicting and preempting", 64, 2, LONGEST + 120, 0, true, false, 1 << 20, true, .follows = true,
     .branches = true},
};

/* ---- traffic --------------------------------------------------------------------------------------------------------- */
/* What the settings are meant to bring about did come about, and what they exclude did not. */
static void check_happened(const struct worker_rig *r, const struct worker_setting *s, struct engine_stats *all)
{
    const struct engine_stats *c = &r->workers[0].counts;
    CHECK(s->max_steps > 1 || !c->steps_overlapped);
    CHECK((s->prefix_cache && !s->whole_prompts) || (!c->rows_cached && !c->rows_rescored));
    CHECK(s->n_state_slots || !c->states_held);
    CHECK(s->follows ? c->rows_followed > 40 && (s->branches || c->rows_dropped > 5) : !c->rows_followed && !c->rows_dropped);
    CHECK_INT(r->x[0]->n_followed, c->rows_followed + c->rows_dropped);
    CHECK(s->branches || !c->sequences_joined);
    all->sequences_joined += c->sequences_joined;
    all->steps_overlapped += c->steps_overlapped;
    all->rows_cached += c->rows_cached;
    all->rows_rescored += c->rows_rescored;
    all->evicted_tokens += c->evicted_tokens;
    all->states_held += c->states_held;
    CHECK(!s->preempts || c->preemptions > 100);
    all->requests_done += c->requests_done;
    all->requests_failed += c->requests_failed;
    all->requests_cancelled += c->requests_cancelled;
}

static void test_traffic(uint64_t seed)
{
    struct engine_stats all = {0};
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        struct worker_rig r;
        int before = check_failures;
        traffic_seed(seed + i);
        if (!worker_rig_open(&r, &settings[i]))
            return;
        for (int round = 0; round < ROUNDS; round++)
            worker_rig_act(&r);
        worker_rig_settle(&r);
        check_happened(&r, &settings[i], &all);
        worker_rig_close(&r);
        if (check_failures > before)
            fprintf(stderr, "  with %s, seed %llu\n", settings[i].name, (unsigned long long)(seed + i));
    }
    CHECK(all.steps_overlapped && all.rows_cached && all.rows_rescored && all.evicted_tokens && all.states_held);
    CHECK(all.requests_failed && all.requests_cancelled && all.requests_done > 2 * all.requests_cancelled);
    CHECK(all.sequences_joined > 50);
}

/* ---- failures -------------------------------------------------------------------------------------------------------- */
static const struct worker_setting small[] = {
    {"one step in flight", 16, 1, 2 * LONGEST, 0, true, false, 1 << 20},
    {"two steps in flight, router states", 16, 2, 2 * LONGEST, 12, true, false, 1 << 20},
    {"two steps in flight, following, router states", 16, 2, 2 * LONGEST, 12, true, false, 1 << 20, .follows = true},
    {"two steps in flight, joining", 200, 2, 4 * LONGEST, 0, true, false, 1 << 20, .branches = true},
};

/* A bit of traffic; once the device is lost, the queue takes nothing. */
static void run_until_lost(struct worker_rig *r)
{
    for (int round = 0; round < 12; round++) {
        int j = traffic_random(WORKER_RIG_JOBS);
        worker_rig_check(r, j);
        if (!r->jobs[j].ticket)
            CHECK_INT(worker_rig_submit(r, j), r->workers[0].lost ? ERR_DEVICE : 0);
        else if (!traffic_random(4))
            worker_rig_cancel(r, j);
        for (int n = traffic_random(5); n > 0; n--)
            worker_rig_turn(r);
    }
    worker_rig_settle(r);
}

/* Returns false when there were fewer calls. */
static bool fail_call(const struct worker_setting *s, uint64_t seed, int call)
{
    struct worker_rig r;
    struct err err = {0};
    traffic_seed(seed);
    if (!worker_rig_open(&r, s))
        return false;
    r.x[0]->fail_at = call;
    r.may_fail = ERR_DEVICE;
    run_until_lost(&r);
    bool reached = r.x[0]->n_calls >= call;
    CHECK_INT(r.workers[0].lost, reached);
    CHECK_INT(r.x[0]->n_drops, reached);
    CHECK_INT(queue_health(&r.queue, &err), reached ? ERR_DEVICE : 0);
    CHECK_STR(err.text, reached ? "the device was asked to fail" : "");
    CHECK_INT(r.n_unexpected > 0, reached);
    worker_rig_close(&r);
    return reached;
}

static void test_device_failures(uint64_t seed)
{
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
        int call = 1, before = check_failures;
        while (check_failures == before && fail_call(&small[i], seed, call))
            call++;
        CHECK(call > 20);
        if (check_failures > before)
            fprintf(stderr, "  with %s, call %d failing, seed %llu\n", small[i].name, call, (unsigned long long)seed);
    }
}

/* Without memory requests fail one by one, and the worker goes on. */
static void test_no_memory_with(const struct worker_setting *s, uint64_t seed)
{
    bool reached = true;
    int n = 0, before = check_failures;
    for (; reached && check_failures == before; n++) {
        struct worker_rig r;
        traffic_seed(seed);
        if (!worker_rig_open(&r, s))
            return;
        r.may_fail = ERR_NOMEM;
        for (int j = 0; j < 4; j++)
            CHECK_INT(worker_rig_submit(&r, j), 0);
        failing_plan(n);
        worker_rig_settle(&r);
        reached = failing_reached();
        CHECK(r.n_unexpected <= 1 && !r.workers[0].lost);
        worker_rig_close(&r);
    }
    CHECK(n > 20);
    if (check_failures > before)
        fprintf(stderr, "  with %s, allocation %d failing, seed %llu\n", s->name, n - 1, (unsigned long long)seed);
}

static void test_no_memory(uint64_t seed)
{
    for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++)
        test_no_memory_with(&small[i], seed);
}

/* Memory ends now and then, while many join: also where what they joined is lost and a token of theirs is being drawn. */
static void test_joining_without_memory(uint64_t seed)
{
    static const struct worker_setting joining = {
        "joining, two steps of 300 rows", 300, 2, 20 * LONGEST, 0, true, false, 1 << 20, .branches = true};
    for (int i = 0; i < 40; i++) {
        struct worker_rig r;
        int before = check_failures;
        traffic_seed(seed + (uint64_t)i);
        if (!worker_rig_open(&r, &joining))
            return;
        r.may_fail = ERR_NOMEM;
        for (int round = 0; round < 60; round++) {
            worker_rig_act(&r);
            failing_plan(traffic_random(60));
            for (int n = traffic_random(4); n > 0; n--)
                worker_rig_turn(&r);
            failing_reached();
        }
        worker_rig_settle(&r);
        worker_rig_close(&r);
        if (check_failures > before)
            fprintf(stderr, "  with %s, seed %llu\n", joining.name, (unsigned long long)seed + i);
    }
}

static void test_open_without_memory(void)
{
    bool reached = true;
    struct fake_executor *x = fake_executor_open(&(struct executor_limits){
        .max_rows = 16, .max_steps = 2, .n_kv_slots = 100, .n_table_entries = 100, .n_state_slots = 4, .max_positions = 20});
    struct queue q;
    queue_init(&q, 1, 1);
    for (int n = 0; reached; n++) {
        struct worker w;
        struct err err = {0};
        long live = failing_live();
        failing_plan(n);
        int r = worker_init(&w, &x->face, &q, &(struct worker_options){.prefix_cache = true}, &err);
        reached = failing_reached();
        CHECK_INT(r, reached ? ERR_NOMEM : 0);
        CHECK(!reached || err.text[0]);
        worker_close(&w);
        CHECK_INT(failing_live(), live);
    }
    queue_done(&q);
    fake_executor_close(x);
}

/* ---- with its thread --------------------------------------------------------------------------------------------------- */
/* Has it rested once more than so many times before? Else this hangs. */
static void wait_for_rest(struct worker_rig *r, int before)
{
    while (atomic_load(&r->x[0]->n_rests) <= before)
        sched_yield();
}

static void test_thread(uint64_t seed)
{
    struct worker_rig r;
    struct err err;
    traffic_seed(seed);
    if (!worker_rig_open(&r, &small[1]) || !CHECK_INT(worker_start(&r.workers[0], &err), 0))
        return;
    for (int round = 0; round < 3; round++) {
        int rests = atomic_load(&r.x[0]->n_rests);
        for (int j = 0; j < WORKER_RIG_JOBS; j++)
            CHECK_INT(worker_rig_submit(&r, j), 0);
        if (round == 1)
            worker_rig_cancel(&r, 3);
        queue_clear_cache(&r.queue);
        if (round == 2)
            break;
        for (int j = 0; j < WORKER_RIG_JOBS; j++) {
            CHECK(queue_wait(&r.queue, r.jobs[j].ticket, -1));
            worker_rig_check(&r, j);
        }
        wait_for_rest(&r, rests);
    }
    worker_close(&r.workers[0]); /* what is under way is cancelled */
    r.may_fail = ERR_CANCELLED;
    for (int j = 0; j < WORKER_RIG_JOBS; j++) {
        worker_rig_check(&r, j);
        CHECK(!r.jobs[j].ticket);
    }
    CHECK_INT(r.x[0]->n_breaches, 0);
    queue_done(&r.queue);
    fake_executor_close(r.x[0]);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    failing_init();
    test_traffic(seed);
    test_device_failures(seed);
    test_no_memory(seed);
    test_joining_without_memory(seed);
    test_open_without_memory();
    test_thread(seed);
    return check_result();
}
