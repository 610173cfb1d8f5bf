/* Tokens that are drawn beside the steps: as long as the test holds draws back, other sequences' steps go on and their own sit out; the worker sleeps
 * where nothing else is to be done; sequences that draw stay together; cancelling, a lost device and a stop in the middle of a draw end nothing too
 * early and leave nothing behind; tokens are those of the same seeds (expect.h). */
#include "tests/check.h"
#include "tests/unit/worker_rig.h"

enum { LONGEST = (TRAFFIC_LEN + TRAFFIC_NEW - 1) * FAKE_LAYERS, ROWS = 40, TURNS = 200 };

static const struct worker_setting kinds[] = {
    {"one step in flight", ROWS, 1, 40 * LONGEST, 0, true, false, 1 << 20},
    {"two steps in flight", ROWS, 2, 40 * LONGEST, 0, true, false, 1 << 20},
    {"router states", ROWS, 2, 40 * LONGEST, 60, true, false, 1 << 20},
    {"whole prompts", ROWS, 2, 40 * LONGEST, 0, true, true, 1 << 20},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
static const struct worker_setting two_devices = {"two devices", ROWS, 2, 40 * LONGEST, 0, true, false, 1 << 20, false, 2};

/* Prompts that have nothing in common. */
static const int32_t prompts[8][6] = {{10, 1, 2, 3, 4, 5}, {11, 5, 4, 3, 2, 1}, {12, 1, 1, 1, 2, 2}, {13, 7, 8, 9, 1, 1},
                                      {14, 9, 9, 9, 9, 9}, {15, 3, 1, 4, 1, 5}, {16, 2, 7, 1, 8, 2}, {17, 1, 6, 1, 8, 0}};

enum what { SCORE, GREEDY, DRAWN };

static void submit_prompt(struct worker_rig *r, int j, int prompt, enum what what)
{
    struct eval_request q = {.tokens = prompts[prompt],
                             .n_tokens = 6,
                             .score_begin = what == SCORE ? 1 : 6,
                             .max_new = what == SCORE ? 0 : TRAFFIC_NEW,
                             .temperature = what == DRAWN ? 0.8f : 0,
                             .top_p = 1,
                             .seed = (uint64_t)j,
                             .top_k = 2,
                             .ignore_eos = true};
    r->client = (uint64_t)j + 1;
    CHECK_INT(worker_rig_submit_one(r, j, &q), 0);
}

static void submit(struct worker_rig *r, int j, enum what what)
{
    submit_prompt(r, j, j, what);
}

static const struct sequence *seq(const struct worker_rig *r, int j)
{
    return &r->jobs[j].ticket->seqs[0];
}

static bool done(struct worker_rig *r, int j)
{
    return queue_wait(&r->queue, r->jobs[j].ticket, 0);
}

/* Turns until nothing is left to do but to draw. */
static void until_asleep(struct worker_rig *r)
{
    int turns = 0;
    while (worker_rig_turn(r))
        if (!CHECK(turns++ < TURNS))
            return;
}

static void open_held(struct worker_rig *r, const struct worker_setting *s)
{
    traffic_seed(1);
    if (!worker_rig_open(r, s))
        return;
    r->holds = true;
}

/* Without holding: all tokens are as expected, and all slots come back. */
static void finish(struct worker_rig *r)
{
    r->holds = false;
    worker_rig_settle(r);
    worker_rig_close(r);
}

static int n_drawn(const struct worker_rig *r, int first, int n)
{
    int all = 0;
    for (int j = first; j < first + n; j++)
        all += seq(r, j)->n_new;
    return all;
}

/* ---- others ------------------------------------------------------------------------------------------------------------ */
static void test_others_go_on(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    for (int j = 0; j < 4; j++)
        submit(&r, j, DRAWN);
    until_asleep(&r);
    CHECK_INT(r.workers[0].n_drawing, 4);
    uint64_t before = r.workers[0].counts.steps;
    submit(&r, 4, SCORE);
    submit(&r, 5, GREEDY);
    until_asleep(&r);
    CHECK(done(&r, 4) && done(&r, 5));
    CHECK(r.workers[0].counts.steps >= before + TRAFFIC_NEW);
    CHECK(!done(&r, 0) && r.workers[0].n_drawing == 4 && n_drawn(&r, 0, 4) == 0);
    worker_rig_check(&r, 4);
    worker_rig_check(&r, 5);
    CHECK_INT(r.n_done, 2);
    finish(&r);
}

/* A score that comes in the middle of draws is done after a step of its own. */
static void test_score_starts(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    submit(&r, 0, DRAWN);
    for (int round = 0; round < TRAFFIC_NEW; round++) {
        until_asleep(&r);
        submit(&r, 1, SCORE);
        until_asleep(&r);
        CHECK(done(&r, 1));
        worker_rig_check(&r, 1);
        worker_rig_clear(&r); /* else the next is answered from the cache */
        CHECK_INT(seq(&r, 0)->n_new, round);
        CHECK(fake_executor_draw(r.x[0]));
    }
    finish(&r);
}

/* ---- by themselves ------------------------------------------------------------------------------------------------------- */
/* Nothing is launched and nobody is asked while draws are held, and no sequence runs ahead of the others. */
static void test_stay_together(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    for (int j = 0; j < 3; j++)
        submit(&r, j, DRAWN);
    until_asleep(&r);
    for (int token = 1; token < TRAFFIC_NEW; token++) {
        int calls = r.x[0]->n_calls;
        for (int i = 0; i < 3; i++) {
            CHECK_INT(r.x[0]->n_calls, calls);
            CHECK(fake_executor_draw(r.x[0]));
            CHECK(i == 2 || !worker_rig_turn(&r)); /* it sleeps until the last */
        }
        until_asleep(&r);
        CHECK_INT(r.x[0]->n_calls, calls + 2); /* one step: launched and waited for */
        CHECK_INT(n_drawn(&r, 0, 3), 3 * token);
        CHECK_INT(r.workers[0].n_drawing, 3);
    }
    finish(&r);
}

/* One whose token is there joins a step that is launched for others. */
static void test_joins(void)
{
    struct worker_rig r;
    open_held(&r, &kinds[0]);
    submit(&r, 0, DRAWN);
    submit(&r, 1, DRAWN);
    until_asleep(&r);
    CHECK(fake_executor_draw(r.x[0]));
    submit(&r, 2, SCORE);
    until_asleep(&r);
    CHECK(done(&r, 2));
    CHECK_INT(n_drawn(&r, 0, 2), 1);
    CHECK_INT(r.workers[0].n_drawing, 2);
    CHECK_INT(r.x[0]->n_draws_begun, 2);
    finish(&r);
}

/* ---- the end in the middle ---------------------------------------------------------------------------------------------- */
/* A cancelled sequence ends when its token is there, and not before: the draw reads what is the ticket's. */
static void test_cancel(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    submit(&r, 0, DRAWN);
    submit(&r, 1, DRAWN);
    until_asleep(&r);
    r.jobs[0].cancelled = true;
    queue_cancel(&r.queue, r.jobs[0].ticket);
    until_asleep(&r);
    CHECK(!done(&r, 0));
    int calls = r.x[0]->n_calls;
    while (fake_executor_draw(r.x[0]))
        ;
    until_asleep(&r);
    CHECK(done(&r, 0) && seq(&r, 0)->result.code == ERR_CANCELLED);
    CHECK_INT(r.x[0]->n_calls, calls + 2); /* the other one's */
    finish(&r);
}

/* A sequence that fails with its step waits for the draw as well. */
static void test_fails_beside(void)
{
    static const int32_t bad[] = {9, 1, FAKE_BAD_STATE, 2};
    struct eval_request q = {
        .tokens = bad, .n_tokens = 4, .score_begin = 4, .max_new = 2, .temperature = 0.8f, .top_p = 1, .ignore_eos = true};
    struct worker_rig r;
    open_held(&r, &kinds[2]);
    CHECK_INT(worker_rig_submit_one(&r, 0, &q), 0);
    until_asleep(&r);
    CHECK(seq(&r, 0)->done && !done(&r, 0));
    CHECK(fake_executor_draw(r.x[0]));
    until_asleep(&r);
    CHECK(done(&r, 0) && seq(&r, 0)->result.code == ERR_NUMERIC);
    finish(&r);
}

/* The device fails while tokens are drawn: without another all ends, with another they are drawn there. */
static void test_lost(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    for (int j = 0; j < 3; j++)
        submit(&r, j, DRAWN);
    until_asleep(&r);
    int device = (int)(seq(&r, 0)->place - r.jobs[0].ticket->places);
    CHECK(seq(&r, 0)->drawing);
    r.x[device]->fail_at = r.x[device]->n_calls + 1;
    submit_prompt(&r, 3, 0, SCORE); /* goes where the prompt is */
    until_asleep(&r);
    CHECK(r.workers[device].lost && !r.workers[device].n_drawing && !r.x[device]->n_draws);
    if (r.n_devices == 1)
        r.may_fail = ERR_DEVICE;
    else
        CHECK(r.workers[device].counts.requests_moved > 0);
    finish(&r);
    CHECK_INT(r.n_unexpected > 0, r.n_devices == 1);
}

static void test_stop(const struct worker_setting *s)
{
    struct worker_rig r;
    open_held(&r, s);
    for (int j = 0; j < 3; j++)
        submit(&r, j, DRAWN);
    until_asleep(&r);
    CHECK_INT(r.workers[0].n_drawing, 3);
    worker_close(&r.workers[0]);
    CHECK_INT(r.x[0]->n_draws, 0);
    r.may_fail = ERR_CANCELLED;
    for (int j = 0; j < 3; j++) {
        CHECK(done(&r, j));
        worker_rig_check(&r, j);
    }
    CHECK_INT(r.n_unexpected, 3);
    CHECK_INT(r.x[0]->n_breaches, 0);
    queue_done(&r.queue);
    fake_executor_close(r.x[0]);
}

int main(void)
{
    for (int i = 0; i < KINDS; i++) {
        int before = check_failures;
        test_others_go_on(&kinds[i]);
        test_score_starts(&kinds[i]);
        test_stay_together(&kinds[i]);
        test_cancel(&kinds[i]);
        test_lost(&kinds[i]);
        test_stop(&kinds[i]);
        if (check_failures > before)
            fprintf(stderr, "  with %s\n", kinds[i].name);
    }
    test_joins();
    test_fails_beside();
    test_lost(&two_devices);
    return check_result();
}
