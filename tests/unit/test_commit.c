/* Taking in steps: the slots that the device took are found again from decisions, the others go back, everything is counted, and without memory a
 * sequence fails alone. The fake executor knows which token, position and layer it wrote to a slot. */
#include "tests/check.h"
#include "tests/fail/failing.h"
#include "tests/unit/expect.h"
#include "tests/unit/rig.h"
#include <stdlib.h>

enum { SLOTS = 1500, LENGTH = 50 };

static struct rig rig;
static int32_t tokens[2][LENGTH];
static struct eval_request reqs[2];
static struct sequence seqs[2];

/* Two sequences that share nothing, so that none waits. */
static void open_two(int score_begin)
{
    CHECK(rig_open(&rig, 128, SLOTS, 0));
    for (int i = 0; i < 2; i++) {
        for (int t = 0; t < LENGTH; t++)
            tokens[i][t] = (i + t * t * 3 + t) % FAKE_GOOD;
        reqs[i] = (struct eval_request){.tokens = tokens[i], .n_tokens = LENGTH, .score_begin = score_begin, .top_k = 2, .top_p = 1};
        rig_prepare(&rig, &seqs[i], &reqs[i]);
        CHECK_INT(rig_admit(&rig, &seqs[i], i ? seqs[0].promised : 0), ADMIT_DONE);
    }
}

static void close_two(void)
{
    for (int i = 0; i < 2; i++) {
        if (!seqs[i].done)
            sequence_finish(&seqs[i], &rig.env, 0, NULL);
        sequence_release(&seqs[i]);
    }
    rig_close(&rig);
}

/* ---- where the slots are -------------------------------------------------------------------------------------------- */
struct census {
    char times[SLOTS]; /* that a slot was met */
    int n;
};

static void meet(struct census *c, const int *slots, int n)
{
    for (int i = 0; i < n; i++) {
        CHECK_INT(c->times[slots[i]]++, 0);
        c->n++;
    }
}

/* The node's slots hold its tokens at their positions, token by token and within a token by ascending layer. */
static void check_node(void *arg, struct tree_node *node, int start)
{
    int at = 0;
    for (int i = 0; i < node->n_kv; i++)
        for (int l = 0; l < FAKE_LAYERS; l++) {
            if (!fake_model_leaves_kv(node->tokens[i], l, 0))
                continue;
            const struct fake_key *k = &rig.x->keys[node->slots[at++]];
            CHECK(k->token == node->tokens[i] && k->pos == start + i && k->layer == l);
        }
    CHECK_INT(node->n_slots, at);
    meet(arg, node->slots, node->n_slots);
}

/* Every slot is free or held by one token. */
static void check_slots(void)
{
    struct census c = {0};
    meet(&c, rig.kv.free, rig.kv.n_free);
    for (int i = 0; i < 2; i++)
        if (!seqs[i].done)
            tree_walk_up(&seqs[i].path, check_node, &c);
    if (!seqs[0].done && !seqs[1].done) {
        CHECK_INT(c.n, SLOTS);
        CHECK_INT(rig.tree.held_slots, SLOTS - rig.kv.n_free);
    }
}

static int count_keys(const int32_t *ids, int n, int layer)
{
    int keys = 0;
    for (int i = 0; i < n; i++)
        keys += fake_model_leaves_kv(ids[i], layer, 0);
    return keys;
}

static void check_key_counts(const struct sequence *s)
{
    for (int l = 0; l < FAKE_LAYERS; l++)
        CHECK_INT(s->kv_count[l], count_keys(s->req->tokens, s->n_kv, l));
}

/* ---- tests ----------------------------------------------------------------------------------------------------------- */
/* Runs shorter and longer than a block of COMMIT_ROWS, two in a step. */
static void test_slots_and_counts(void)
{
    static const int steps[][2] = {{1, 40}, {33, 1}, {5, 6}, {10, 2}};
    uint64_t routed[FAKE_LAYERS] = {0};
    open_two(LENGTH);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        for (int j = 0; j < 2; j++)
            rig_pack(&rig, &seqs[j], steps[i][j]);
        rig_run(&rig);
        check_slots();
        check_key_counts(&seqs[0]);
        check_key_counts(&seqs[1]);
    }
    for (int j = 0; j < 2; j++)
        for (int p = 0; p < LENGTH - 1; p++)
            for (int l = 0; l < FAKE_LAYERS; l++)
                routed[l] += fake_model_decision(tokens[j][p], l, 0) == DECISION_ATTEND;
    CHECK_INT(rig.counts.rows_computed, 2 * (LENGTH - 1));
    CHECK_INT(rig.counts.rows_rescored, 0);
    for (int l = 0; l < FAKE_LAYERS; l++)
        CHECK_INT(rig.counts.rows_routed[l], routed[l]);
    close_two();
}

/* A step whose every row has keys in every layer is read by another path. */
static void test_all_keys(void)
{
    int32_t dense = 2; /* the others begin with 0 and 1 */
    while (dense < FAKE_GOOD && count_keys(&dense, 1, 1) + count_keys(&dense, 1, 3) < 2)
        dense++;
    if (!CHECK(dense < FAKE_GOOD))
        return;
    open_two(LENGTH);
    rig_pack(&rig, &seqs[1], 3);
    rig_run(&rig);
    int32_t same[12];
    for (int i = 0; i < 12; i++)
        same[i] = dense;
    struct eval_request q = {.tokens = same, .n_tokens = 12, .score_begin = 1, .top_p = 1, .want_routing = true};
    sequence_finish(&seqs[0], &rig.env, 0, NULL);
    sequence_release(&seqs[0]);
    rig_prepare(&rig, &seqs[0], &q);
    CHECK_INT(rig_admit(&rig, &seqs[0], 0), ADMIT_DONE);
    rig_pack(&rig, &seqs[0], 11);
    rig_run(&rig);
    check_slots();
    sequence_finish(&seqs[0], &rig.env, 0, NULL);
    CHECK(expect_result(&q, &seqs[0].result, -1, rig.x->kind));
    close_two();
}

/* Rows that run again leave nothing; slots were reserved for none of them. */
static void test_reruns(void)
{
    open_two(LENGTH);
    rig_pack(&rig, &seqs[0], LENGTH - 1);
    rig_run(&rig);
    sequence_finish(&seqs[0], &rig.env, 0, NULL);
    sequence_release(&seqs[0]);
    reqs[0].score_begin = LENGTH - 10;
    rig_prepare(&rig, &seqs[0], &reqs[0]);
    CHECK_INT(rig_admit(&rig, &seqs[0], seqs[1].promised), ADMIT_DONE);
    int before = rig.kv.n_free;
    rig_pack(&rig, &seqs[0], 10);
    rig_run(&rig);
    CHECK_INT(rig.kv.n_free, before);
    CHECK_INT(rig.counts.rows_rescored, 10);
    CHECK_INT(rig.counts.rows_computed, LENGTH - 1);
    check_slots();
    sequence_finish(&seqs[0], &rig.env, 0, NULL);
    CHECK(expect_result(&reqs[0], &seqs[0].result, -1, rig.x->kind));
    close_two();
}

/* A sequence that ended while its step was under way: all its slots go back, the other's results arrive. */
static void test_ended_meanwhile(void)
{
    open_two(1);
    rig_pack(&rig, &seqs[0], LENGTH - 1);
    rig_pack(&rig, &seqs[1], LENGTH - 1);
    rig_compute(&rig);
    sequence_finish(&seqs[0], &rig.env, ERR_CANCELLED, NULL);
    commit_step(&rig.commit, &rig.env, &rig.step, &rig.counts);
    int keys = 0;
    for (int l = 0; l < FAKE_LAYERS; l++)
        keys += count_keys(tokens[1], LENGTH - 1, l);
    CHECK_INT(rig.kv.n_free, SLOTS - keys);
    check_slots();
    sequence_finish(&seqs[1], &rig.env, 0, NULL);
    CHECK(expect_result(&reqs[1], &seqs[1].result, -1, rig.x->kind));
    close_two();
}

/* Each allocation fails in turn. A sequence keeps what it has room for, and if that is not all it fails; the other goes on. */
static void test_no_memory(void)
{
    bool reached = true;
    for (int n = 0; reached; n++) {
        open_two(1);
        for (int j = 0; j < 2; j++)
            rig_pack(&rig, &seqs[j], LENGTH - 1);
        rig_compute(&rig);
        failing_plan(n);
        commit_step(&rig.commit, &rig.env, &rig.step, &rig.counts);
        reached = failing_reached();
        CHECK(!seqs[0].done || !seqs[1].done);
        check_slots();
        CHECK_INT(rig.kv.n_free + rig.tree.held_slots, SLOTS);
        for (int j = 0; j < 2; j++) {
            if (seqs[j].done)
                CHECK(seqs[j].result.code == ERR_NOMEM && strstr(seqs[j].result.err.text, "memory"));
            else
                sequence_finish(&seqs[j], &rig.env, 0, NULL);
            CHECK(seqs[j].result.code || expect_result(&reqs[j], &seqs[j].result, -1, rig.x->kind));
        }
        if (!n)
            CHECK_INT(seqs[0].result.code, ERR_NOMEM);
        close_two();
    }
}

int main(void)
{
    failing_init();
    test_slots_and_counts();
    test_all_keys();
    test_reruns();
    test_ended_meanwhile();
    test_no_memory();
    return check_result();
}
