/* A sequence from admission to its result: what it takes from the tree, which rows it runs again, how it is packed, what it commits, why it ends. */
#include "tests/check.h"
#include "tests/unit/expect.h"
#include "tests/unit/rig.h"
#include <stdlib.h>

enum { BEFORE = -2 };

static struct rig rig;
static int32_t tokens[RIG_POSITIONS]; /* most requests here are prefixes of these */

static struct eval_request request(int n, int score_begin, int top_k, int max_new)
{
    return (struct eval_request){
        .tokens = tokens, .n_tokens = n, .score_begin = score_begin, .top_k = top_k, .max_new = max_new, .top_p = 1, .want_routing = true};
}

/* ---- the tree's part ------------------------------------------------------------------------------------------------ */
/* One after another on one tree: what each finds there. A row is run again where a score is missing, appended where it has no keys. */
static void test_reuse(void)
{
    static const struct {
        const char *what;
        int n, score_begin, top_k, max_new;
        int cached, rows;
    } cases[] = {
        {"all is new", 12, 9, 1, 0, 0, 11},
        {"the same again", 12, 9, 1, 0, 11, 0},
        {"as many alternatives as there are", 12, 10, 0, 0, 11, 0},
        {"one more alternative", 12, 11, 2, 0, 11, 1},
        {"scores that are missing", 12, 6, 1, 0, 11, 3},
        {"one token", 1, 1, 0, 0, 0, 0},
        {"no score", 12, 12, 0, 0, 11, 0},
        {"a shorter one", 8, 3, 1, 0, 7, 3},
        {"the first scores of all", 12, 1, 1, 0, 11, 2},
        {"all alternatives again", 12, 1, 5, 0, 11, 11},
        {"a longer one", 20, 12, 1, 0, 11, 8},
        {"the last token needs a row to go on", 20, 20, 0, 1, 19, 1},
        {"that row is there now, its token is not", 20, 20, 0, 3, 20, 3},
        {"no use for the last row", 20, 20, 0, 0, 19, 0},
        {"score and generate", 24, 18, 3, 4, 20, 2 + 1 + 4 + 3},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct eval_request q = request(cases[i].n, cases[i].score_begin, cases[i].top_k, cases[i].max_new);
        struct sequence s;
        int before = check_failures;
        rig_prepare(&rig, &s, &q);
        rig_complete(&rig, &s, 4);
        CHECK(expect_result(&q, &s.result, -1, rig.x->kind));
        CHECK_INT(s.result.rows_cached, cases[i].cached);
        CHECK_INT(s.result.rows_computed, cases[i].rows);
        if (check_failures > before)
            fprintf(stderr, "  in case \"%s\"\n", cases[i].what);
        sequence_release(&s);
    }
    tree_clear(&rig.tree);
}

/* Where the rows are cut into steps changes nothing, from an empty tree or from one that has a part. */
static void test_steps_of_any_size(void)
{
    for (int cached = 0; cached <= 30; cached += 10) {
        for (int n = 1; n <= 16; n++) {
            struct eval_request first = request(cached + 1, cached + 1, 0, 0), q = request(30, 5, 2, 6);
            if (cached)
                rig_answer(&rig, &first, 16);
            int want = 35 - cached + (cached > 4 ? (cached < 30 ? cached : 30) - 4 : 0);
            CHECK_INT(rig_answer(&rig, &q, n), want);
            tree_clear(&rig.tree);
        }
    }
}

/* Which rows are run again: runs of consecutive ones, with the keys before each. */
static void test_reruns_are_packed(void)
{
    struct eval_request all = request(12, 4, 1, 0), gap = request(12, 7, 2, 0), q = request(12, 2, 2, 0);
    struct sequence s;
    rig_answer(&rig, &all, 16); /* scores of 4 .. 11 */
    gap.n_tokens = 9;
    rig_answer(&rig, &gap, 16); /* two alternatives for 7 and 8 */
    rig_prepare(&rig, &s, &q);
    CHECK_INT(rig_admit(&rig, &s, 0), ADMIT_DONE);
    CHECK_INT(sequence_due(&s), 8); /* rows 1 .. 5 and 8 .. 10 */
    rig_pack(&rig, &s, 4);
    CHECK(s.n_flights && sequence_goes_on(&s));
    CHECK_INT(sequence_due(&s), 0);
    rig_run(&rig);
    rig_pack(&rig, &s, 4);
    const struct step_rows *rows = &rig.step.rows;
    CHECK_INT(rows->n_runs, 2);
    CHECK_INT(rows->n_append, 0);
    CHECK(rows->runs[0].row0 == 0 && rows->runs[0].n == 1 && rows->pos[0] == 5);
    CHECK(rows->runs[1].row0 == 1 && rows->runs[1].n == 3 && rows->pos[1] == 8);
    for (int l = 0; l < FAKE_LAYERS; l++) {
        int keys = 0;
        for (int p = 0; p < 8; p++) {
            if (p == 5)
                CHECK_INT(*step_rows_base(rows, l, 0), keys);
            keys += fake_model_leaves_kv(tokens[p], l, 0);
        }
        CHECK_INT(*step_rows_base(rows, l, 1), keys);
    }
    CHECK_INT(rows->n_want, 4);
    CHECK_INT(rows->top_k, 2);
    CHECK(rig.step.wants[3].seq == &s && rig.step.wants[3].pos == 10 && rows->want_target[3] == tokens[11]);
    CHECK(!sequence_goes_on(&s));
    rig_run(&rig);
    CHECK_INT(sequence_due(&s), 0);
    sequence_finish(&s, &rig.env, 0, NULL);
    CHECK(expect_result(&q, &s.result, -1, rig.x->kind));
    sequence_release(&s);
    tree_clear(&rig.tree);
}

/* Two sequences in one step, one of them with rows to run again before those it appends. */
static void test_two_in_a_step(void)
{
    int32_t other[20];
    for (int i = 0; i < 20; i++)
        other[i] = i < 6 ? tokens[i] : (tokens[i] + 1) % FAKE_GOOD;
    struct eval_request first = request(10, 10, 0, 0), a = request(20, 4, 1, 0), b = a;
    struct sequence s[2];
    b.tokens = other;
    rig_answer(&rig, &first, 16);
    for (int i = 0; i < 2; i++) {
        rig_prepare(&rig, &s[i], i ? &b : &a);
        CHECK_INT(rig_admit(&rig, &s[i], i ? s[0].promised : 0), ADMIT_DONE);
    }
    CHECK(s[0].n_cached == 9 && s[1].n_cached == 6);
    while (sequence_due(&s[0]) || sequence_due(&s[1])) {
        for (int i = 0; i < 2; i++)
            if (sequence_due(&s[i]))
                rig_pack(&rig, &s[i], sequence_due(&s[i]) < 7 + i ? sequence_due(&s[i]) : 7 + i);
        rig_run(&rig);
    }
    for (int i = 0; i < 2; i++) {
        sequence_finish(&s[i], &rig.env, 0, NULL);
        CHECK(expect_result(i ? &b : &a, &s[i].result, -1, rig.x->kind));
        sequence_release(&s[i]);
    }
    tree_clear(&rig.tree);
}

/* ---- admission ------------------------------------------------------------------------------------------------------ */
/* What admission sets aside, and what it leaves as it was when it cannot. */
static void test_admission(void)
{
    struct eval_request q = request(12, 12, 0, 3), same = request(14, 1, 0, 0), none = request(1, 1, 0, 0);
    struct eval_request other = same;
    struct sequence a, b, c, d;
    int n_slots = rig.kv.n;
    rig_prepare(&rig, &a, &q);
    rig_prepare(&rig, &b, &same);
    rig_prepare(&rig, &c, &none);
    other.tokens = tokens + 1;
    rig_prepare(&rig, &d, &other);
    CHECK_INT(rig_admit(&rig, &a, n_slots - 14 * FAKE_LAYERS + 1), ADMIT_WAIT_ROOM); /* others were promised too much */
    CHECK(!rig.tree.n_linked && rig.tables.n_holes == 1 && rig.tables.holes[0].off == 0 && !a.done);
    CHECK_INT(rig_admit(&rig, &a, n_slots - 14 * FAKE_LAYERS), ADMIT_DONE);
    CHECK_INT(a.promised, 14 * FAKE_LAYERS);
    CHECK_INT(a.table_cap, 14);
    CHECK_INT(sequence_due(&a), 12);
    CHECK_INT(rig_admit(&rig, &b, a.promised), ADMIT_WAIT_PREFIX);
    CHECK_INT(b.table_off, -1);
    CHECK_INT(rig_admit(&rig, &c, n_slots), ADMIT_DONE); /* needs nothing, so it never waits */
    CHECK_INT(sequence_due(&c), 0);
    sequence_finish(&c, &rig.env, 0, NULL);
    CHECK(expect_result(&none, &c.result, -1, rig.x->kind));
    int64_t entries = rig.tables.holes[0].n, off = extents_take(&rig.tables, entries);
    CHECK_INT(rig_admit(&rig, &d, a.promised), ADMIT_WAIT_ROOM); /* no tables are left */
    extents_give(&rig.tables, off, entries);
    rig_pack(&rig, &a, 5);
    rig_run(&rig);
    CHECK_INT(a.promised, 9 * FAKE_LAYERS);
    sequence_finish(&a, &rig.env, ERR_CANCELLED, NULL);
    CHECK_INT(a.promised, 0);
    CHECK_INT(rig_admit(&rig, &b, 0), ADMIT_DONE); /* goes on where a was cancelled */
    CHECK_INT(b.n_cached, 5);
    CHECK_INT(b.promised, 8 * FAKE_LAYERS);
    sequence_finish(&b, &rig.env, ERR_CANCELLED, NULL);
    struct sequence *all[] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++)
        sequence_release(all[i]);
    tree_clear(&rig.tree);
}

/* The executor fails when a prefix's tables are written. */
static void test_failed_table(void)
{
    struct eval_request q = request(12, 1, 0, 0);
    struct sequence s;
    rig_answer(&rig, &q, 16);
    q.n_tokens = 14;
    rig.x->fail_at = rig.x->n_calls + 1;
    rig_prepare(&rig, &s, &q);
    CHECK_INT(rig_admit(&rig, &s, 0), ADMIT_LOST);
    CHECK(!s.done && !s.result.code && !s.n_kv); /* another device may have it */
    CHECK_INT(s.table_off, -1);
    sequence_release(&s);
    tree_clear(&rig.tree);
    rig.x->fail_at = 0;
}

/* ---- the end -------------------------------------------------------------------------------------------------------- */
/* What is generated after n tokens. */
static const int32_t *greedy_tokens(int n, int max_new)
{
    static int32_t all[RIG_POSITIONS];
    struct fake_sequence s = {rig.x->kind, all, n};
    memcpy(all, tokens, sizeof(tokens));
    for (int i = n; i < n + max_new; i++)
        all[i] = fake_model_top_id(fake_model_row(&s, i - 1), 0);
    return all + n;
}

static bool all_differ(const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if (ids[i] == ids[j])
                return false;
    return true;
}

static void test_finish_reasons(void)
{
    int prompt = 9;
    while (!all_differ(greedy_tokens(prompt, 6), 6))
        prompt++;
    const int32_t *next = greedy_tokens(prompt, 6);
    static const struct {
        const char *what;
        int max_new, eos, stop; /* the place of the generated token that is it; -1: none; BEFORE: stopped before there is one */
        bool ignore_eos, sampled;
        enum finish_reason want;
        int n;
    } cases[] = {
        {"nothing to generate", 0, -1, -1, false, false, FINISH_NONE, 0},
        {"length", 6, -1, -1, false, false, FINISH_LENGTH, 6},
        {"one token", 1, -1, -1, false, false, FINISH_LENGTH, 1},
        {"end of text", 6, 2, -1, false, false, FINISH_EOS, 3},
        {"end of text at once", 6, 0, -1, false, false, FINISH_EOS, 1},
        {"end of text, ignored", 6, 2, -1, true, false, FINISH_LENGTH, 6},
        {"end of text as the last token", 3, 2, -1, false, false, FINISH_EOS, 3},
        {"stopped", 6, -1, 1, false, false, FINISH_STOP, 2},
        {"stopped before the end of text", 6, 3, 1, false, false, FINISH_STOP, 2},
        {"stopped at the end of text", 6, 3, 3, false, false, FINISH_EOS, 4},
        {"stopped at the last token", 3, -1, 2, false, false, FINISH_STOP, 3},
        {"stopped before it ran", 6, -1, BEFORE, false, false, FINISH_STOP, 1},
        {"sampled", 6, -1, -1, false, true, FINISH_LENGTH, 6},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct eval_request q = request(prompt, prompt, 2, cases[i].max_new);
        struct expect_watch watch = {.stop = cases[i].stop < 0 ? -1 : next[cases[i].stop], .stopped = cases[i].stop == BEFORE};
        int32_t eos = cases[i].eos < 0 ? -1 : next[cases[i].eos];
        struct sequence s;
        q.ignore_eos = cases[i].ignore_eos;
        q.temperature = cases[i].sampled ? 1 : 0;
        q.seed = 5;
        q.on_token = expect_on_token;
        q.user = &watch;
        rig.env.eos_ids = &eos;
        rig.env.n_eos = 1;
        rig_prepare(&rig, &s, &q);
        atomic_store(&s.stopped, watch.stopped);
        rig_complete(&rig, &s, 16);
        if (!CHECK(expect_result(&q, &s.result, eos, rig.x->kind)) || !CHECK_INT(s.result.finish, cases[i].want) ||
            !CHECK_INT(s.result.n_new, cases[i].n))
            fprintf(stderr, "  in case \"%s\"\n", cases[i].what);
        sequence_release(&s);
    }
    rig.env.n_eos = 0;
    tree_clear(&rig.tree);
}

/* A failure keeps its text; what was computed until then stays for others. */
static void test_failures(void)
{
    int32_t with_bad[12];
    memcpy(with_bad, tokens, sizeof(with_bad));
    with_bad[6] = FAKE_BAD_TOKEN;
    struct eval_request unscored = request(12, 8, 0, 0), scored = request(12, 3, 0, 0);
    struct sequence s;
    unscored.tokens = scored.tokens = with_bad;
    CHECK_INT(expect_code(&unscored, rig.x->kind), 0);
    rig_answer(&rig, &unscored, 5); /* nobody asks for the logits of position 6 */
    rig_prepare(&rig, &s, &scored);
    rig_complete(&rig, &s, 2);
    CHECK_INT(s.result.code, ERR_NUMERIC);
    CHECK(strstr(s.result.err.text, "position 6"));
    CHECK_INT(expect_code(&scored, rig.x->kind), ERR_NUMERIC);
    sequence_release(&s);
    scored.n_tokens = 7; /* scores up to 6 are there now, but for the one that does not exist */
    CHECK_INT(rig_answer(&rig, &scored, 2), 0);
    tree_clear(&rig.tree);
}

int main(void)
{
    for (int i = 0; i < RIG_POSITIONS; i++)
        tokens[i] = (i * i * 7 + i * 3 + 1) % FAKE_GOOD;
    if (rig_open(&rig, 16, 400, 0)) {
        test_reuse();
        test_steps_of_any_size();
        test_reruns_are_packed();
        test_two_in_a_step();
        test_admission();
        test_failed_table();
        test_finish_reasons();
        test_failures();
        rig_close(&rig);
    }
    if (rig_open(&rig, 16, 400, 40)) {
        test_two_in_a_step();
        test_finish_reasons();
        test_failures();
        rig_close(&rig);
    }
    return check_result();
}
