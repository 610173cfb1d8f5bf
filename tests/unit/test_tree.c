/* The radix tree by hand: sharing, splitting, waiting, taking over a tail that was only scored, private nodes, eviction.
 * Two layers: 0 keeps K and V of every token, 1 of the tokens that are even. */
#include "engine/memory/tree.h"
#include "tests/check.h"

static struct tree tree;
static struct slots kv, states;
static struct route_bits bits;

/* Computes the path's tokens from `from` up to `to`, all in one go. */
static void compute(struct tree_path *p, const int32_t *tokens, int from, int to)
{
    uint8_t route[8];
    int slots[16];
    for (int i = from; i < to; i++)
        route[i - from] = (uint8_t)(DECISION_ATTEND | (tokens[i] % 2 ? DECISION_LINEAR : DECISION_ATTEND) << 2);
    slots_take(&kv, route_bits_count_kv(&bits, route, to - from), slots);
    CHECK_INT(tree_append(&tree, p, tokens + from, to - from, route, slots), to - from);
}

static int enter(struct tree_path *p, const void *owner, const int32_t *tokens, int n, int n_rows)
{
    int n_kv = -1;
    CHECK_INT(tree_enter(&tree, owner, NULL, tokens, n, n_rows, p, &n_kv), 0);
    return n_kv;
}

static int probe(const int32_t *tokens, int n, int n_rows)
{
    const void *owner;
    int blocked;
    return tree_probe(&tree, tokens, n, n_rows, &blocked, &owner);
}

static void test_share_and_split(void)
{
    static const int32_t a[] = {1, 2, 3, 4, 5}, b[] = {1, 2, 3, 9, 9}, c[] = {1, 2};
    struct tree_path pa, pb, pc;
    CHECK_INT(enter(&pa, &pa, a, 5, 4), 0);
    CHECK_INT(probe(b, 5, 4), -1); /* another sequence is about to compute 1 */
    compute(&pa, a, 0, 2);
    CHECK_INT(probe(b, 5, 4), -1);
    compute(&pa, a, 2, 3);
    CHECK_INT(probe(b, 5, 4), 3);
    CHECK_INT(enter(&pb, &pb, b, 5, 4), 3); /* splits the node that a is still filling */
    CHECK_INT(enter(&pc, &pc, c, 2, 1), 2);
    CHECK_INT(pc.n_linked, 2);
    compute(&pa, a, 3, 4);
    compute(&pb, b, 3, 4);
    CHECK_INT(kv.n - kv.n_free, 7); /* 1 2 3 4 9: 5 + two even ones */
    CHECK_INT(tree.held_slots, 7);
    CHECK_INT(tree.pinned_slots, 7);
    float lp = -1, top_lp = -0.5f;
    int32_t top = 7;
    tree_put_score(&tree, &pa, 4, 1, lp, &top, &top_lp); /* the last token has a score and no row */
    tree_put_score(&tree, &pa, 1, 1, lp, &top, &top_lp);
    tree_leave(&tree, &pa);
    tree_leave(&tree, &pb);
    tree_leave(&tree, &pc);
    CHECK_INT(tree.pinned_slots, 0);
    CHECK_INT(tree.held_slots, 7);
    CHECK_INT(tree.tokens, 6); /* 1 2 3 | 4 5 | 9: b's unscored last token is gone */
}

static void test_scores_and_take_over(void)
{
    static const int32_t a[] = {1, 2, 3, 4, 5, 6};
    struct tree_path p;
    float lp, top_lp;
    int32_t top;
    CHECK_INT(enter(&p, &p, a, 5, 4), 4);
    CHECK(tree_get_score(&p, 4, 1, &lp, &top, &top_lp) && lp == -1 && top == 7 && top_lp == -0.5f);
    CHECK(tree_get_score(&p, 1, 1, &lp, &top, &top_lp));
    CHECK(!tree_get_score(&p, 2, 1, &lp, &top, &top_lp));
    CHECK(!tree_get_score(&p, 4, 2, &lp, &top, &top_lp));
    tree_leave(&tree, &p);
    CHECK_INT(enter(&p, &p, a, 6, 6), 4); /* 5 was only scored: its row is this sequence's to compute */
    CHECK_INT(probe(a, 5, 5), -1);
    compute(&p, a, 4, 6);
    static const int32_t generated[] = {8, 8, 8};
    compute(&p, generated, 0, 3); /* past the path: private */
    CHECK_INT(tree.held_slots, 7 + 1 + 2 + 6);
    tree_leave(&tree, &p);
    CHECK_INT(tree.held_slots, 10);
    CHECK_INT(probe(a, 6, 6), 6);
}

static void test_evict(void)
{
    static const int32_t a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 2, 3, 9};
    struct tree_path p;
    CHECK_INT(enter(&p, &p, b, 4, 3), 4); /* pins 1 2 3 and 9; 4 5 6 can go */
    CHECK_INT(tree_available(&tree), kv.n_free + 5);
    tree_make_room(&tree, tree_available(&tree));
    CHECK_INT(probe(a, 6, 6), 3);
    tree_clear(&tree);
    CHECK_INT(probe(b, 4, 4), 4);
    tree_leave(&tree, &p);
    tree_clear(&tree);
    CHECK_INT(kv.n_free, kv.n);
    CHECK_INT(tree.bytes, 0);
    CHECK_INT(tree.tokens, 0);
}

static void test_many_children(void)
{
    struct tree_path p[3000];
    for (int32_t i = 0; i < 3000; i++) /* more than the hash starts with */
        enter(&p[i], &p[i], &i, 1, 0);
    for (int i = 0; i < 3000; i++) {
        float lp = (float)i;
        tree_put_score(&tree, &p[i], 0, 1, lp, &(int32_t){i}, &lp);
        tree_leave(&tree, &p[i]);
    }
    for (int32_t i = 0; i < 3000; i++) {
        float lp = -1, top_lp;
        int32_t top;
        enter(&p[0], &p[0], &i, 1, 0);
        CHECK(tree_get_score(&p[0], 0, 1, &lp, &top, &top_lp) && lp == (float)i);
        tree_leave(&tree, &p[0]);
    }
    tree_clear(&tree);
    CHECK_INT(tree.n_linked, 0);
}

/* Copies of router states: found at or before a position, divided when a node is split, dropped when the pool runs out. */
static void test_states(void)
{
    static const int32_t a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 2, 3, 9};
    struct tree_path pa, pb;
    int at, first = tree_take_state(&tree, 0), second = tree_take_state(&tree, 0);
    enter(&pa, &pa, a, 6, 5);
    CHECK_INT(tree_find_state(&pa, 6, &at), -1);
    CHECK_INT(at, 0);
    CHECK(!tree_put_state(&tree, &pa, 4, first)); /* not computed yet */
    compute(&pa, a, 0, 5);
    CHECK(tree_put_state(&tree, &pa, 4, second));
    CHECK(tree_put_state(&tree, &pa, 2, first));
    CHECK(!tree_put_state(&tree, &pa, 2, second));
    CHECK_INT(tree_find_state(&pa, 3, &at), first);
    CHECK_INT(at, 2);
    enter(&pb, &pb, b, 4, 3); /* splits after 1 2 3 */
    CHECK_INT(tree_find_state(&pa, 5, &at), second);
    CHECK_INT(at, 4);
    CHECK_INT(tree_find_state(&pb, 3, &at), first);
    CHECK_INT(at, 2);
    for (int i = 0; i < 6; i++)
        CHECK(tree_take_state(&tree, 0) >= 0);
    CHECK_INT(tree_take_state(&tree, 0), -1); /* both copies are on paths in use */
    tree_leave(&tree, &pa);
    CHECK_INT(tree_take_state(&tree, 0), second);
    CHECK_INT(tree.n_states, 1);
    tree_leave(&tree, &pb);
    tree_clear(&tree);
    CHECK_INT(tree.n_states, 0);
    CHECK_INT(states.n_free, 1);
    CHECK_INT(tree.bytes, 0);
}

int main(void)
{
    static const struct route_layer layers[2] = {{.routed = false}, {.routed = true}};
    if (CHECK_INT(route_bits_init(&bits, layers, 2), 0) && CHECK_INT(slots_init(&kv, 64), 0) && CHECK_INT(slots_init(&states, 8), 0) &&
        CHECK_INT(tree_init(&tree, &kv, &states, &bits, true, 1 << 20), 0)) {
        test_share_and_split();
        test_scores_and_take_over();
        test_evict();
        test_states();
        test_many_children();
    }
    tree_done(&tree);
    slots_done(&kv);
    slots_done(&states);
    route_bits_done(&bits);
    return check_result();
}
