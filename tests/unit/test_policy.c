/* The policy: who is admitted and in which order, who waits for what, who makes way, and how a step is shared out. test_fair.c has what it promises,
 * counted in steps. */
#include "engine/schedule/policy.h"
#include "tests/check.h"
#include "tests/unit/expect.h"
#include "tests/unit/rig.h"
#include <stdlib.h>

enum { MANY = POLICY_WINDOW + 40 };

static struct rig rig;
static struct policy policy;
static struct sequence seqs[MANY];
static struct eval_request reqs[MANY];
static int32_t tokens[MANY][RIG_POSITIONS];
static struct engine_ticket tickets[4]; /* of clients 1 .. 3: each has one, of usual size; 0 is not used */

static void open_policy(int max_rows, int n_slots)
{
    struct err err;
    CHECK(rig_open(&rig, max_rows, n_slots, 0));
    CHECK_INT(policy_init(&policy, max_rows, FAKE_LAYERS, &err), 0);
    for (int i = 0; i < 4; i++)
        tickets[i] = (struct engine_ticket){.client_id = (uint64_t)i, .rows = max_rows};
}

static void end(struct sequence *s)
{
    if (s->where != SEQUENCE_ELSEWHERE)
        policy_remove(&policy, s);
    if (!s->done)
        sequence_finish(s, &rig.env, 0, NULL);
}

static void close_policy(int n)
{
    for (int i = 0; i < n; i++) {
        end(&seqs[i]);
        sequence_release(&seqs[i]);
    }
    CHECK(policy_idle(&policy));
    policy_done(&policy);
    rig_close(&rig);
}

static void arrive(struct sequence *s, int client)
{
    struct seq_list one = {0};
    s->ticket = &tickets[client];
    s->place = &tickets[client].places[0];
    seq_list_push(&one, s);
    policy_arrive(&policy, &one);
}

static const struct seq_list *ready(void)
{
    return &tickets[1].places[0].flow->ready;
}

static const struct seq_list *running(void)
{
    return &tickets[1].places[0].flow->running;
}

/* Queues sequence i: n tokens that begin with `first`, all of them scored. */
static void add(int i, int first, int n)
{
    for (int t = 0; t < n; t++)
        tokens[i][t] = t ? (first + t * t) % FAKE_GOOD : first;
    reqs[i] = (struct eval_request){.tokens = tokens[i], .n_tokens = n, .score_begin = 1, .top_p = 1};
    rig_prepare(&rig, &seqs[i], &reqs[i]);
    arrive(&seqs[i], 1);
}

static bool is_in(const struct seq_list *l, const struct sequence *s)
{
    const struct sequence *q = l->head;
    while (q && q != s)
        q = q->next;
    return q;
}

/* Sequence i of `expected` is the i-th of the list. */
static void check_list(const struct seq_list *l, const int *expected, int n)
{
    const struct sequence *q = l->head;
    CHECK_INT(l->n, n);
    for (int i = 0; i < n && q; i++, q = q->next)
        CHECK_INT(q - seqs, expected[i]);
}

/* ---- admission ---------------------------------------------------------------------------------------------------- */
/* Compares as the policy promises to sort: by tokens, a prefix before what goes on. */
static int compare(const struct sequence *a, const struct sequence *b)
{
    for (int t = 0; t < a->req->n_tokens && t < b->req->n_tokens; t++)
        if (a->req->tokens[t] != b->req->tokens[t])
            return a->req->tokens[t] - b->req->tokens[t];
    return a->req->n_tokens - b->req->n_tokens;
}

/* More sequences than a window, each of one row or complete at once: all of the first window come before all others. */
static void test_prefix_order(void)
{
    open_policy(2 * MANY, 2 * MANY * FAKE_LAYERS);
    for (int i = 0; i < MANY; i++)
        add(i, (i * 7919) % FAKE_GOOD, 1 + i % 3);
    while (!policy_idle(&policy)) { /* siblings wait for each other; each round admits those that need not */
        struct policy_round round = policy_admit(&policy, &rig.env, 0);
        struct sequence *last = NULL;
        if (!CHECK(round.started + round.complete.n > 0))
            break;
        CHECK_INT(round.started, policy.n_running);
        for (struct sequence *q = round.started ? running()->head : NULL; q; last = q, q = q->next) {
            bool same_window = last && (last - seqs < POLICY_WINDOW) == (q - seqs < POLICY_WINDOW);
            CHECK(!is_in(&round.complete, q));
            CHECK(!last || (same_window ? compare(last, q) <= 0 : last - seqs < q - seqs));
        }
        while (policy.n_running) { /* they finish: the next round may go on from their rows */
            struct sequence *q = running()->head;
            rig_pack(&rig, q, sequence_due(q));
            rig_run(&rig);
            end(q);
        }
    }
    close_policy(MANY);
}

/* Steps of 16 rows. A sequence of more than 8 tokens is long. */
static void test_long_ones_are_passed(void)
{
    open_policy(16, 1000);
    add(0, 0, 40);
    add(1, 1, 40);
    add(2, 2, 5);
    add(3, 3, 9);
    add(4, 4, 8);
    add(5, 5, 5);
    struct policy_round round = policy_admit(&policy, &rig.env, 0);
    check_list(running(), (const int[]){0, 2, 4}, 3); /* 4 + 7 short rows are at least half a step */
    check_list(ready(), (const int[]){1, 3, 5}, 3);
    CHECK_INT(round.started, 3);
    CHECK_INT(policy.due, 39 + 4 + 7);
    CHECK_INT(policy_promised(&policy), (39 + 4 + 7) * FAKE_LAYERS);
    round = policy_admit(&policy, &rig.env, 0);
    CHECK_INT(round.started, 0);
    seqs[0].n_flights = 1; /* the long one's next step is launched: its rows are not due */
    policy_admit(&policy, &rig.env, 0);
    check_list(running(), (const int[]){0, 2, 4, 1}, 4); /* now that fills the step */
    check_list(ready(), (const int[]){3, 5}, 2);
    seqs[0].n_flights = 0;
    close_policy(6);
}

/* Sequences that begin alike wait for the first of them, and then start with its rows; the others are not held up. */
static void test_waiting_for_a_prefix(void)
{
    open_policy(64, 1000);
    add(0, 5, 12);
    add(1, 5, 12);
    add(2, 5, 20);
    add(3, 6, 3);
    struct policy_round round = policy_admit(&policy, &rig.env, 0);
    check_list(running(), (const int[]){0, 3}, 2); /* sorting is not stable; equal sequences may come in any order */
    check_list(ready(), (const int[]){1, 2}, 2);
    CHECK_INT(policy.due, 11 + 2);
    rig_pack(&rig, &seqs[0], 6);
    rig_run(&rig);
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 0); /* half of the prefix is not enough */
    rig_pack(&rig, &seqs[0], 5);
    rig_run(&rig);
    end(&seqs[0]);
    round = policy_admit(&policy, &rig.env, 0);
    check_list(&round.complete, (const int[]){1}, 1); /* all of it was scored */
    check_list(running(), (const int[]){3, 2}, 2);
    CHECK_INT(seqs[2].n_cached, 11);
    CHECK_INT(sequence_due(&seqs[2]), 19 - 11);
    close_policy(4);
}

/* Of many that wait for the same rows one is looked up; whose prefix ends before these rows is not held up with them. */
static void test_blocked_ones_are_skipped(void)
{
    open_policy(64, 4000);
    add(0, 5, 12);
    policy_admit(&policy, &rig.env, 0);
    for (int i = 1; i <= 20; i++)
        add(i, 5, 12 + i);
    add(21, 5, 1);
    add(22, 7, 2);
    policy_admit(&policy, &rig.env, 0);
    int n_tried = 0;
    for (int i = 1; i <= 20; i++)
        n_tried += seqs[i].blocked_at >= 0;
    CHECK_INT(n_tried, 1);
    check_list(running(), (const int[]){0, 22}, 2);
    CHECK_INT(seqs[21].where, SEQUENCE_ELSEWHERE); /* it needed no row */
    close_policy(23);
}

/* A pool for 20 positions. What runs can finish; who does not fit waits, and is passed. */
static void test_room(void)
{
    open_policy(64, 20 * FAKE_LAYERS);
    add(0, 0, 13);
    add(1, 1, 13);
    add(2, 2, 3);
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 2);
    check_list(running(), (const int[]){0, 2}, 2);
    check_list(ready(), (const int[]){1}, 1);
    CHECK_INT(policy_promised(&policy), (12 + 2) * FAKE_LAYERS);
    CHECK_INT(rig.tables.holes[0].n, (2 * 20 - 12 - 2) * FAKE_LAYERS); /* the second gave its tables back */
    int reserved[12 * FAKE_LAYERS];
    slots_take(&rig.kv, 12 * FAKE_LAYERS, reserved);
    CHECK_INT(policy_grow(&policy, &rig.env, 12 * FAKE_LAYERS), 2 * FAKE_LAYERS); /* what a launched step has taken counts once */
    slots_give(&rig.kv, reserved, 12 * FAKE_LAYERS);
    rig_pack(&rig, &seqs[0], 12);
    rig_run(&rig);
    CHECK_INT(policy_promised(&policy), 2 * FAKE_LAYERS); /* the other's: the first holds what it needs */
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 0);
    end(&seqs[0]);
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 1); /* what the first left in the tree can be evicted */
    close_policy(3);
}

/* The reserve is for lone requests: others leave it alone. */
static void test_reserve(void)
{
    open_policy(64, 20 * FAKE_LAYERS);
    policy.reserve = 8 * FAKE_LAYERS;
    add(0, 0, 14);
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 0); /* 13 rows, and 12 are not kept */
    tickets[2].rows = 13;
    reqs[1] = reqs[0];
    rig_prepare(&rig, &seqs[1], &reqs[1]);
    arrive(&seqs[1], 2);
    CHECK_INT(tickets[2].places[0].lane, LANE_ALONE);
    CHECK_INT(policy_admit(&policy, &rig.env, 0).started, 1);
    CHECK_INT(seqs[1].where, SEQUENCE_RUNNING);
    close_policy(2);
}

/* The executor fails while one is admitted: the round ends, and says so. */
static void test_lost_device(void)
{
    open_policy(64, 1000);
    add(0, 5, 12);
    policy_admit(&policy, &rig.env, 0);
    rig_pack(&rig, &seqs[0], 11);
    rig_run(&rig);
    end(&seqs[0]);
    add(1, 4, 3); /* takes nothing from the tree, so its tables are not written */
    add(2, 5, 13);
    add(3, 6, 3);
    rig.x->fail_at = rig.x->n_calls + 1;
    struct policy_round round = policy_admit(&policy, &rig.env, 0);
    CHECK_INT(round.code, ERR_DEVICE);
    check_list(&round.complete, NULL, 0);
    check_list(running(), (const int[]){1}, 1);
    check_list(ready(), (const int[]){2, 3}, 2); /* another device may have it */
    close_policy(4);
}

/* ---- making way ------------------------------------------------------------------------------------------------------ */
/* A sequence of a client that generates. */
static void add_generation(int i, int client, int n, int max_new)
{
    for (int t = 0; t < n; t++)
        tokens[i][t] = t ? (3 + t * t) % FAKE_GOOD : i % FAKE_GOOD;
    reqs[i] =
        (struct eval_request){.tokens = tokens[i], .n_tokens = n, .score_begin = n, .max_new = max_new, .top_p = 1, .ignore_eos = true};
    rig_prepare(&rig, &seqs[i], &reqs[i]);
    arrive(&seqs[i], client);
}

/* One step of all that is due. */
static void step(void)
{
    policy_admit(&policy, &rig.env, 0);
    int n = policy_divide(&policy);
    for (int i = 0; i < n; i++)
        rig_pack(&rig, policy.grants[i].seq, policy.grants[i].n);
    rig_run(&rig);
    for (struct sequence *s = policy_next(&policy, NULL), *next; s; s = next) {
        next = policy_next(&policy, s);
        if (s->where == SEQUENCE_RUNNING && (s->done || s->result.finish != FINISH_NONE || !sequence_due(s)))
            end(s);
    }
}

/* Three generations in a pool that holds one to its end: the newest make way, the oldest never does, all get the tokens that they get alone. */
static void test_generations_make_way(void)
{
    enum { LEN = 4, NEW = 40, POOL = LEN + NEW + 10 };
    open_policy(16, POOL * FAKE_LAYERS);
    policy.ahead = 4; /* so that all are admitted */
    for (int i = 0; i < 3; i++)
        add_generation(i, 1, LEN, NEW);
    int order[3], n = 0, steps = 0;
    while (!policy_idle(&policy) && CHECK(steps++ < 1000)) {
        int before = n;
        step();
        for (int i = 0; i < 3; i++)
            if (seqs[i].done && !(n > 0 && order[0] == i) && !(n > 1 && order[1] == i) && !(n > 2 && order[2] == i) && n < 3)
                order[n++] = i;
        CHECK(n - before <= 1);
    }
    CHECK_INT(order[0], 0);
    CHECK(policy.n_preempted > 0);
    CHECK_INT(seqs[0].n_preempted, 0);
    for (int i = 0; i < 3; i++)
        CHECK(expect_result(&reqs[i], &seqs[i].result, -1, rig.x->kind));
    close_policy(3);
}

/* A client that has nothing running and finds no room gets it from the one that holds most, after a while. */
static void test_others_make_way(void)
{
    enum { POOL = 64 };
    open_policy(16, POOL * FAKE_LAYERS);
    for (int i = 0; i < 2; i++)
        add_generation(i, 1, 5, 27); /* 31 positions each */
    step();
    add_generation(2, 2, 5, 10);
    int steps = 0;
    while (!seqs[2].n_new && CHECK(steps < 100)) {
        step();
        steps++;
    }
    CHECK(steps <= POLICY_PATIENCE + 2);
    CHECK_INT(seqs[1].n_preempted, 1);
    CHECK_INT(seqs[0].n_preempted, 0);
    while (!policy_idle(&policy) && CHECK(steps++ < 1000))
        step();
    for (int i = 0; i < 3; i++)
        CHECK(expect_result(&reqs[i], &seqs[i].result, -1, rig.x->kind));
    close_policy(3);
}

/* ---- shares -------------------------------------------------------------------------------------------------------- */
static void run(struct sequence *s, int client)
{
    struct flow *f;
    arrive(s, client);
    f = s->ticket->places[0].flow;
    seq_list_remove(&f->waiting, s);
    seq_list_push(&f->running, s);
    s->where = SEQUENCE_RUNNING;
    policy.n_running++;
}

static void open_divided(int max_rows)
{
    struct err err;
    CHECK_INT(policy_init(&policy, max_rows, FAKE_LAYERS, &err), 0);
    for (int i = 0; i < 4; i++)
        tickets[i] = (struct engine_ticket){.client_id = (uint64_t)i, .rows = max_rows};
}

/* A running sequence with so many rows due, generating or in its prompt. */
static void run_with(int i, int due, bool generating)
{
    reqs[i] = (struct eval_request){.tokens = tokens[i], .n_tokens = due + 1, .score_begin = due + 1, .max_new = generating ? 4 : 0};
    seqs[i] = (struct sequence){.req = &reqs[i], .table_cap = due + 4, .n_prompt_rows = due, .promised = (due + 4) * FAKE_LAYERS};
    if (generating) { /* its prompt's rows are there, and one generated token */
        seqs[i].n_new = 1;
        seqs[i].n_kv = due + 1;
    }
    run(&seqs[i], 1);
}

static const struct grant *grant_of(const struct sequence *s, int granted)
{
    for (int i = 0; i < granted; i++)
        if (policy.grants[i].seq == s)
            return &policy.grants[i];
    return NULL;
}

static void test_shares(void)
{
    static const struct {
        const char *what;
        int max_rows;
        struct {
            int due; /* 0: the end; < 0: a generating sequence, which has one row due */
            int n;
        } seqs[6];
    } cases[] = {
        {"all fit", 16, {{3, 3}, {4, 4}, {-1, 1}}},
        {"in order", 8, {{3, 3}, {4, 4}, {4, 1}, {2, 0}}},
        {"generating first", 8, {{4, 4}, {4, 2}, {-1, 1}, {-1, 1}}},
        {"only generating", 4, {{-1, 1}, {-1, 1}, {-1, 1}, {-1, 1}}},
        {"one long alone", 16, {{40, 16}}},
        {"a long one, short ones fit in half", 16, {{40, 12}, {4, 4}}},
        {"a long one, short ones would take more than half", 16, {{40, 8}, {8, 8}, {8, 0}}},
        {"a long one, generating ones take from both", 16, {{40, 7}, {8, 7}, {-1, 1}, {-1, 1}}},
        {"two long ones, the first takes all", 16, {{40, 15}, {40, 0}, {1, 1}}},
        {"a long one that could leave some", 16, {{9, 8}, {8, 8}}},
        {"just long", 16, {{8, 8}, {9, 8}}},
        {"odd rows", 7, {{4, 3}, {3, 3}, {3, 1}}},
        {"a step of one row", 1, {{-1, 1}}},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        int n = 0, before = check_failures;
        open_divided(cases[c].max_rows);
        for (; n < 6 && cases[c].seqs[n].due; n++)
            run_with(n, abs(cases[c].seqs[n].due), cases[c].seqs[n].due < 0);
        int granted = policy_divide(&policy), seen = 0;
        for (int i = 0; i < n; i++) {
            const struct grant *g = grant_of(&seqs[i], granted);
            CHECK_INT(g ? g->n : 0, cases[c].seqs[i].n);
            seen += g != NULL;
        }
        CHECK_INT(seen, granted);
        if (check_failures > before)
            fprintf(stderr, "  in case \"%s\"\n", cases[c].what);
        policy_done(&policy);
    }
}

/* Whole prompts: those that fit, or every generating sequence, in turn. */
static void test_whole_prompts(void)
{
    static const struct {
        int due[5]; /* as in test_shares */
        struct {
            int n, seqs[3];
        } steps[3];
    } cases[] = {
        {{10, 10, 5, -1, -1}, {{2, {0, 2}}, {2, {3, 4}}, {2, {0, 2}}}},
        {{-1, -1}, {{2, {0, 1}}, {2, {0, 1}}, {2, {0, 1}}}},
        {{16, 3}, {{1, {0}}, {1, {0}}, {1, {0}}}},
        {{9, -1, 7}, {{2, {0, 2}}, {1, {1}}, {2, {0, 2}}}},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        open_divided(16);
        for (int i = 0; i < 5 && cases[c].due[i]; i++)
            run_with(i, abs(cases[c].due[i]), cases[c].due[i] < 0);
        for (int step = 0; step < 3; step++) {
            int n = policy_divide_whole(&policy);
            CHECK_INT(n, cases[c].steps[step].n);
            for (int i = 0; i < n; i++) {
                const struct grant *g = &policy.grants[i];
                CHECK_INT(g->seq - seqs, cases[c].steps[step].seqs[i]);
                CHECK(g->n == g->due && g->n == sequence_due(g->seq));
            }
        }
        policy_done(&policy);
    }
}

/* Who is in flight, done or complete gets nothing. */
static void test_no_rows_due(void)
{
    open_divided(8);
    for (int i = 0; i < 4; i++)
        run_with(i, 3, false);
    seqs[0].n_flights = 1;
    seqs[1].done = true;
    seqs[2].n_kv = 3;
    CHECK_INT(policy_divide(&policy), 1);
    CHECK(policy.grants[0].seq == &seqs[3] && policy.grants[0].n == 3 && policy.grants[0].due == 3);
    policy_done(&policy);
}

/* ---- more to come -------------------------------------------------------------------------------------------------- */
static void test_more_to_come(void)
{
    static const struct {
        const char *what;
        bool in_flight, generating;
        int appending, reruns, max_new;
        bool more;
    } cases[] = {
        {"nothing in flight", false, false, 0, 0, 0, false}, {"its last rows", true, false, 6, 0, 0, false},
        {"a part of its rows", true, false, 5, 0, 0, true},  {"rows to run again are left", true, false, 6, 1, 0, true},
        {"its last token", true, true, 1, 0, 2, false},      {"a token of more", true, true, 1, 0, 3, true},
    };
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        open_divided(8);
        run_with(0, 6, cases[c].generating);
        reqs[0].max_new = cases[c].max_new;
        seqs[0].n_flights = cases[c].in_flight;
        seqs[0].n_appending = cases[c].appending;
        seqs[0].n_rerun_left = cases[c].reruns;
        if (!CHECK_INT(policy_more_to_come(&policy), cases[c].more))
            fprintf(stderr, "  in case \"%s\"\n", cases[c].what);
        CHECK(!policy_idle(&policy));
        seqs[1] = (struct sequence){.req = &reqs[1]};
        arrive(&seqs[1], 2);
        policy.no_room = true; /* who waits for that may be admitted then */
        CHECK(policy_more_to_come(&policy));
        policy.no_room = false; /* it waits for rows of the next step, which it can join */
        CHECK_INT(policy_more_to_come(&policy), cases[c].more);
        policy_done(&policy);
    }
}

/* Rows that follow wait for what waits for others' rows, not for what waits for room, and for nobody who could come with them but cannot yet. */
static void test_more_to_follow(void)
{
    static const struct {
        const char *what;
        bool waiting, blocked;
        int other; /* a second sequence in flight: 0: none; 1: it follows as well; 2: it cannot; 3: it has no room; 4: its last token comes */
        bool more;
    } cases[] = {
        {"one that follows", false, false, 0, false}, {"two", false, false, 1, false},
        {"one that cannot", false, false, 2, true},   {"one without room", false, false, 3, true},
        {"one that ends", false, false, 4, false},    {"one waits for room", true, false, 0, false},
        {"one waits for rows", true, true, 0, true},
    };
    static struct step step;
    for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
        open_divided(8);
        for (int i = 0; i <= (cases[c].other > 0); i++) {
            run_with(i, 6, true);
            reqs[i].max_new = 9;
            seqs[i].n_flights = seqs[i].n_appending = 1;
            seqs[i].flight = i && cases[c].other == 2 ? NULL : &step;
            seqs[i].promised = (i && cases[c].other == 3 ? 1 : 2) * FAKE_LAYERS;
        }
        if (cases[c].other == 4)
            reqs[1].max_new = seqs[1].n_new + 1;
        if (cases[c].waiting) {
            seqs[2] = (struct sequence){.req = &reqs[2]};
            arrive(&seqs[2], 3);
        }
        policy.blocked = cases[c].blocked;
        policy.no_room = cases[c].waiting && !cases[c].blocked;
        if (!CHECK_INT(policy_more_to_come(&policy), cases[c].more))
            fprintf(stderr, "  in case \"%s\"\n", cases[c].what);
        policy_done(&policy);
    }
}

int main(void)
{
    test_prefix_order();
    test_long_ones_are_passed();
    test_waiting_for_a_prefix();
    test_blocked_ones_are_skipped();
    test_room();
    test_reserve();
    test_lost_device();
    test_generations_make_way();
    test_others_make_way();
    test_shares();
    test_whole_prompts();
    test_no_rows_due();
    test_more_to_come();
    test_more_to_follow();
    return check_result();
}
