/* Sequences of models whose routers keep states: where copies are kept, which rows run again to reach a state, and what a lost one ends. */
#include "tests/check.h"
#include "tests/unit/expect.h"
#include "tests/unit/rig.h"

static struct rig rig;
static int32_t tokens[RIG_POSITIONS]; /* most requests here are prefixes of these */

static struct eval_request request(int n, int score_begin, int top_k, int max_new)
{
    return (struct eval_request){
        .tokens = tokens, .n_tokens = n, .score_begin = score_begin, .top_k = top_k, .max_new = max_new, .top_p = 1, .want_routing = true};
}

/* Copies are kept every 8 positions, where the context ends, and one row before the end of what was cached. A row that must run needs all rows from
 * the copy before it on. */
static void test_states(void)
{
    static const struct {
        const char *what;
        int n, score_begin, max_new;
        int cached, rows, copies;
    } cases[] = {
        {"all is new", 12, 12, 0, 0, 11, 2 /* 8, 11 */},
        {"goes on from the last copy", 20, 20, 0, 11, 8, 4 /* 16, 19 */},
        {"nothing to do", 20, 20, 0, 19, 0, 4},
        {"scores from a copy on", 20, 12, 0, 19, 8, 5 /* 18 */},
        {"scores before any copy, and after one", 14, 5, 0, 13, 11, 6 /* 4 */},
        {"generates from the last copy on", 20, 5, 2, 19, 2, 6},
        {"row 19 is cached, the states after it are not", 24, 24, 0, 20, 4, 7 /* 23 */},
        {"a score between two copies, and generates", 24, 23, 5, 23, 4 + 1 + 4, 9 /* 22, 24 */},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct eval_request q = request(cases[i].n, cases[i].score_begin, 0, cases[i].max_new);
        struct sequence s;
        int before = check_failures;
        rig_prepare(&rig, &s, &q);
        rig_complete(&rig, &s, 5);
        CHECK(expect_result(&q, &s.result, -1, rig.x->kind));
        CHECK_INT(s.result.rows_cached, cases[i].cached);
        CHECK_INT(s.result.rows_computed, cases[i].rows);
        CHECK_INT(rig.tree.n_states, cases[i].copies);
        CHECK_INT(rig.states.n_free + rig.tree.n_states, rig.states.n);
        if (check_failures > before)
            fprintf(stderr, "  in case \"%s\"\n", cases[i].what);
        sequence_release(&s);
    }
    tree_clear(&rig.tree);
}

/* A slot that another sequence left its states in is not where a new one begins. */
static void test_states_begin_anew(void)
{
    for (int i = 0; i < 4; i++) {
        struct eval_request q = request(10, 1, 0, 2);
        q.tokens = tokens + i;
        rig_answer(&rig, &q, 3 + i);
    }
    tree_clear(&rig.tree);
}

/* Without a free place a sequence waits, and without one for a copy there is no copy. */
static void test_few_places(void)
{
    struct eval_request a = request(30, 5, 0, 0), b = a;
    struct sequence s[2];
    int taken[64], n = rig.states.n_free - 1;
    slots_take(&rig.states, n, taken);
    b.tokens = tokens + 1;
    rig_prepare(&rig, &s[0], &a);
    rig_prepare(&rig, &s[1], &b);
    CHECK_INT(rig_admit(&rig, &s[0], 0), ADMIT_DONE);
    CHECK_INT(rig_admit(&rig, &s[1], s[0].promised), ADMIT_WAIT_ROOM);
    CHECK(s[1].table_off < 0 && s[1].state_slot < 0 && !s[1].promised);
    rig_pack(&rig, &s[0], 16);
    CHECK_INT(rig.step.rows.n_saves, 0);
    rig_run(&rig);
    sequence_finish(&s[0], &rig.env, ERR_CANCELLED, NULL);
    rig_complete(&rig, &s[1], 9);
    CHECK(expect_result(&b, &s[1].result, -1, rig.x->kind));
    CHECK_INT(rig_answer(&rig, &a, 9), 29); /* 16 rows are cached, and run again for want of states */
    for (int i = 0; i < 2; i++)
        sequence_release(&s[i]);
    slots_give(&rig.states, taken, n);
    tree_clear(&rig.tree);
}

/* A router's state that is not finite: rows of that run are not kept, those before it are. */
static void test_bad_state(void)
{
    int32_t with_bad[12];
    memcpy(with_bad, tokens, sizeof(with_bad));
    with_bad[6] = FAKE_BAD_STATE;
    struct eval_request q = request(12, 12, 0, 0), before = request(7, 1, 0, 0);
    q.tokens = before.tokens = with_bad;
    for (int i = 0; i < 2; i++) {
        struct sequence s;
        rig_prepare(&rig, &s, &q);
        rig_complete(&rig, &s, 4);
        CHECK_INT(s.result.code, ERR_NUMERIC);
        CHECK(strstr(s.result.err.text, "layer 3") && strstr(s.result.err.text, "position 6"));
        CHECK_INT(s.result.rows_cached, 4 * i);
        sequence_release(&s);
    }
    CHECK_INT(rig_answer(&rig, &before, 3), 6); /* 4 rows for their scores, 2 that were not kept */
    tree_clear(&rig.tree);
}

int main(void)
{
    for (int i = 0; i < RIG_POSITIONS; i++)
        tokens[i] = (i * i * 7 + i * 3 + 1) % FAKE_GOOD;
    if (rig_open(&rig, 16, 400, 40)) {
        test_states();
        test_states_begin_anew();
        test_few_places();
        test_bad_state();
        rig_close(&rig);
    }
    return check_result();
}
