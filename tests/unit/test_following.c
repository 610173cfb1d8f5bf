/* Steps that follow each other without the host (step_rows.h, "follow"): a generating sequence's next row is launched while the one before it computes,
 * from a prompt's last row on; all that can run stay together; what ends or makes way does so at once, and its row under way is dropped and not counted;
 * requests that come meanwhile begin within the steps that they are promised. That bits are equal is test_worker's and test_traffic's. */
#include "tests/check.h"
#include "tests/unit/worker_rig.h"

enum { LONGEST = (TRAFFIC_LEN + TRAFFIC_NEW - 1) * FAKE_LAYERS, ROWS = 64, LEN = 6, NEW = TRAFFIC_NEW, GENERATIONS = 5, TURNS = 200 };

static const struct worker_setting kinds[] = {
    {"plain", ROWS, 2, 40 * LONGEST, 0, true, false, 1 << 20, .follows = true},
    {"router states", ROWS, 2, 40 * LONGEST, 60, true, false, 1 << 20, .follows = true},
    {"no cache", ROWS, 2, 40 * LONGEST, 0, false, false, 1 << 20, .follows = true},
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static int32_t prompts[WORKER_RIG_JOBS][LEN];

static void make_prompt(int j)
{
    for (int i = 0; i < LEN; i++)
        prompts[j][i] = i ? traffic_random(FAKE_GOOD) : j;
}

static void open_rig(struct worker_rig *r, const struct worker_setting *s, uint64_t seed)
{
    traffic_seed(seed);
    if (!worker_rig_open(r, s))
        exit(1);
    for (int j = 0; j < WORKER_RIG_JOBS; j++)
        make_prompt(j);
}

static void submit(struct worker_rig *r, int j, struct eval_request q)
{
    q.tokens = prompts[j];
    q.n_tokens = LEN;
    q.score_begin = q.max_new ? LEN : 1;
    q.top_k = 1 + j % 3;
    r->client = (uint64_t)j + 1;
    CHECK_INT(worker_rig_submit_one(r, j, &q), 0);
}

static void generate(struct worker_rig *r, int j)
{
    submit(r, j, (struct eval_request){.max_new = NEW, .ignore_eos = true});
}

static const struct sequence *seq(const struct worker_rig *r, int j)
{
    return &r->jobs[j].ticket->seqs[0];
}

static int in_flight(const struct worker_rig *r)
{
    return (int)(r->x[0]->n_launched - r->x[0]->n_waited);
}

static bool done(struct worker_rig *r, int j)
{
    return queue_wait(&r->queue, r->jobs[j].ticket, 0);
}

/* Turns until sequence j has n tokens, and its next row is under way. */
static void until_follows(struct worker_rig *r, int j, int n)
{
    for (int turns = 0; seq(r, j)->n_new < n || !seq(r, j)->follows || seq(r, j)->n_flights != 1; turns++)
        if (!CHECK(turns < TURNS) || !worker_rig_turn(r))
            exit(1);
}

/* ---- going on ---------------------------------------------------------------------------------------------------------- */
/* A step a token, and but for the first each is launched before the one ahead of it is waited for. No sequence is ahead of another. */
static void test_goes_on(const struct worker_setting *s)
{
    struct worker_rig r;
    const struct engine_stats *c = &r.workers[0].counts;
    int twice = 0;
    open_rig(&r, s, 1);
    for (int j = 0; j < GENERATIONS; j++)
        generate(&r, j);
    for (int turns = 0; !done(&r, 0) && turns < TURNS; turns++) {
        worker_rig_turn(&r);
        twice += in_flight(&r) == 2;
        for (int j = 1; j < GENERATIONS; j++)
            CHECK_INT(seq(&r, j)->n_new, seq(&r, 0)->n_new);
    }
    CHECK_INT(twice, NEW - 1);
    CHECK_INT(r.x[0]->n_launched, NEW);
    CHECK_INT(c->steps_overlapped, NEW - 1);
    CHECK_INT(c->rows_followed, GENERATIONS * (NEW - 1));
    CHECK_INT(c->rows_dropped, 0);
    worker_rig_close(&r);
}

/* A sequence that draws is not followed: it sits out as long as its draw is held, and the steps of the others follow each other without it. */
static void test_beside_draws(const struct worker_setting *s)
{
    struct worker_rig r;
    open_rig(&r, s, 2);
    r.holds = true;
    submit(&r, 0, (struct eval_request){.max_new = NEW, .temperature = 0.5f, .top_p = 1, .ignore_eos = true});
    for (int j = 1; j < GENERATIONS; j++)
        generate(&r, j);
    for (int turns = 0; worker_rig_turn(&r) && turns < TURNS; turns++)
        ;
    for (int j = 1; j < GENERATIONS; j++)
        CHECK(done(&r, j));
    CHECK(!seq(&r, 0)->n_new && seq(&r, 0)->drawing);
    CHECK_INT(r.workers[0].counts.rows_followed, (GENERATIONS - 1) * (NEW - 2)); /* the first step waits for all */
    CHECK_INT(r.x[0]->n_launched, NEW);
    r.holds = false;
    worker_rig_settle(&r);
    CHECK_INT(r.workers[0].counts.rows_followed, (GENERATIONS - 1) * (NEW - 2));
    worker_rig_close(&r);
}

/* A prompt that ends while others generate: the step is followed at once, and nobody misses one. */
static void test_prompt_joins(const struct worker_setting *s)
{
    struct worker_rig r;
    open_rig(&r, s, 3);
    generate(&r, 0);
    until_follows(&r, 0, 2);
    generate(&r, 1);
    uint64_t before = r.x[0]->n_launched;
    until_follows(&r, 1, 1);
    CHECK(r.x[0]->n_launched <= before + 3);
    CHECK_INT(in_flight(&r), 1);
    worker_rig_settle(&r);
    CHECK_INT(r.workers[0].counts.rows_followed, 2 * (NEW - 1));
    CHECK_INT(r.workers[0].counts.steps_overlapped, r.x[0]->n_launched - 1);
    worker_rig_close(&r);
}

/* ---- ends --------------------------------------------------------------------------------------------------------------- */
/* The place of the first EOS among what prompt j brings, counted from 1. */
static int eos_at(int j, struct fake_kind kind)
{
    int32_t tokens[LEN + NEW];
    struct fake_sequence s = {kind, tokens, LEN};
    for (int i = 0; i < LEN; i++)
        tokens[i] = prompts[j][i];
    for (int n = 1; n <= NEW; n++) {
        tokens[LEN + n - 1] = fake_model_top_id(fake_model_row(&s, LEN + n - 2), 0);
        if (tokens[LEN + n - 1] == TRAFFIC_EOS)
            return n;
    }
    return NEW + 1;
}

/* The sequence is over when its last token is there, beside a step under way whose row is nobody's. */
static void test_eos(const struct worker_setting *s)
{
    struct worker_rig r;
    const struct engine_stats *c = &r.workers[0].counts;
    open_rig(&r, s, 4);
    int n;
    while ((n = eos_at(0, r.x[0]->kind)) < 3 || n > NEW - 2)
        make_prompt(0);
    submit(&r, 0, (struct eval_request){.max_new = NEW});
    for (int turns = 0; !seq(&r, 0)->done && turns < TURNS; turns++)
        worker_rig_turn(&r);
    CHECK_INT(in_flight(&r), 1);
    CHECK_INT(seq(&r, 0)->result.n_new, n);
    CHECK_INT(seq(&r, 0)->result.rows_computed, LEN + n - 1);
    CHECK_INT(r.x[0]->n_launched, n + 1);
    CHECK_INT(c->rows_computed, LEN + n - 1);
    worker_rig_settle(&r);
    while (worker_rig_turn(&r))
        ;
    CHECK_INT(in_flight(&r), 0);
    CHECK_INT(c->rows_followed, n - 1);
    CHECK_INT(c->rows_dropped, 1);
    CHECK_INT(c->rows_computed, LEN + n - 1);
    CHECK_INT(c->rows_routed[0], LEN + n - 1);
    CHECK_INT(c->rows_executed[0], LEN + n - 1);
    worker_rig_close(&r);
}

/* Who is cancelled is answered in the next turn, though a step with its row is under way; the others go on. */
static void test_cancel(const struct worker_setting *s)
{
    struct worker_rig r;
    open_rig(&r, s, 5);
    for (int j = 0; j < 3; j++)
        generate(&r, j);
    until_follows(&r, 1, 4);
    worker_rig_cancel(&r, 1);
    worker_rig_turn(&r);
    CHECK(done(&r, 1) && !done(&r, 0) && in_flight(&r));
    CHECK_INT(seq(&r, 1)->result.rows_computed, LEN + seq(&r, 1)->result.n_new - 1);
    worker_rig_settle(&r);
    CHECK_INT(r.workers[0].counts.rows_dropped, 1);
    CHECK_INT(r.x[0]->n_launched, NEW);
    worker_rig_close(&r);
}

/* The same for one that makes way, which is run again with the same tokens. */
static void test_preempt(const struct worker_setting *s)
{
    struct worker_rig r;
    open_rig(&r, s, 6);
    generate(&r, 0);
    generate(&r, 1);
    until_follows(&r, 1, 4);
    policy_preempt(&r.workers[0].policy, &r.workers[0].env, (struct sequence *)(uintptr_t)seq(&r, 1));
    CHECK(!seq(&r, 1)->n_flights && !seq(&r, 1)->follows && in_flight(&r) == 1);
    worker_rig_settle(&r);
    CHECK_INT(r.n_done, 2);
    CHECK_INT(r.workers[0].counts.rows_dropped, 1);
    worker_rig_close(&r);
}

/* The slots of a dropped row are nobody's room until its step is collected: a sequence that needs all of the pool waits for that. */
static void test_room(void)
{
    static int32_t tokens[TRAFFIC_LEN] = {FAKE_GOOD - 1};
    const struct eval_request all = {
        .tokens = tokens, .n_tokens = TRAFFIC_LEN, .score_begin = TRAFFIC_LEN, .max_new = NEW, .top_p = 1, .ignore_eos = true};
    struct worker_setting s = kinds[2];
    struct worker_rig r;
    s.n_kv_slots = LONGEST;
    open_rig(&r, &s, 9);
    r.workers[0].policy.ahead = NEW;
    generate(&r, 0);
    until_follows(&r, 0, 4);
    r.client = 2;
    CHECK_INT(worker_rig_submit_one(&r, 1, &all), 0);
    worker_rig_cancel(&r, 0);
    worker_rig_turn(&r);
    CHECK(done(&r, 0) && seq(&r, 1)->where != SEQUENCE_RUNNING && !in_flight(&r));
    worker_rig_turn(&r);
    CHECK_INT(seq(&r, 1)->where, SEQUENCE_RUNNING);
    worker_rig_close(&r);
}

/* ---- others ------------------------------------------------------------------------------------------------------------- */
/* Whenever a small request comes, its first row is in one of the next two steps; rows follow in that one as well. */
static void test_promise(const struct worker_setting *s)
{
    for (int wait = 0; wait < 2 * NEW; wait++) {
        struct worker_rig r;
        open_rig(&r, s, 7);
        for (int j = 0; j < GENERATIONS; j++)
            generate(&r, j);
        for (int n = 0; n < wait; n++)
            worker_rig_turn(&r);
        const struct engine_stats *c = &r.workers[0].counts;
        uint64_t begun = c->starts[LANE_ALONE][0] + c->starts[LANE_ALONE][1], launched = r.x[0]->n_launched;
        submit(&r, GENERATIONS, (struct eval_request){.max_new = 0});
        for (int turns = 0; !done(&r, GENERATIONS) && turns < TURNS; turns++)
            worker_rig_turn(&r);
        CHECK(r.x[0]->n_launched <= launched + 3);
        worker_rig_settle(&r);
        CHECK_INT(c->starts[LANE_ALONE][0] + c->starts[LANE_ALONE][1], begun + 1);
        CHECK(c->rows_followed >= (uint64_t)GENERATIONS * (NEW - 2));
        worker_rig_close(&r);
    }
}

/* An executor that cannot is not asked to. */
static void test_cannot(void)
{
    struct worker_setting s = kinds[0];
    struct worker_rig r;
    s.follows = false;
    open_rig(&r, &s, 8);
    generate(&r, 0);
    worker_rig_settle(&r);
    CHECK_INT(r.workers[0].counts.steps_overlapped, 0);
    CHECK_INT(r.workers[0].counts.rows_followed, 0);
    worker_rig_close(&r);
}

int main(void)
{
    for (int i = 0; i < KINDS; i++) {
        int before = check_failures;
        test_goes_on(&kinds[i]);
        test_beside_draws(&kinds[i]);
        test_prompt_joins(&kinds[i]);
        test_eos(&kinds[i]);
        test_cancel(&kinds[i]);
        test_preempt(&kinds[i]);
        test_promise(&kinds[i]);
        if (check_failures > before)
            fprintf(stderr, "  with %s\n", kinds[i].name);
    }
    test_room();
    test_cannot();
    return check_result();
}
