/* Collectives of ranks: each gets the columns of all, again and again, small and large, one after the other and two at once; one that fails lets the others go.
 *
 *   test_group [BACKEND] [RANKS]: cpu and 3, or as many devices of another kind; skipped where there are fewer */
#include "tests/check.h"
#include "tests/unit/gather_ranks.h"
#include <stdlib.h>

enum { ROUNDS = 60, FAILS_IN = 31 };

static void run(struct gather_plan plan, bool one_fails)
{
    static struct gather_rank ranks[GATHER_RANKS_MAX];
    struct kern_ctx *contexts[GATHER_RANKS_MAX];
    struct err err = {0};
    plan.fails_in = one_fails ? FAILS_IN : -1;
    gather_ranks_open(&plan, ranks, contexts);
    if (!CHECK_INT(plan.b->group_open(contexts, plan.n_ranks, &err), 0))
        fprintf(stderr, "  %s\n", err.text);
    gather_ranks_run(&plan, ranks);
    for (int i = 0; i < plan.n_ranks; i++) {
        CHECK_INT(ranks[i].code, one_fails && i != 1 ? ERR_DEVICE : 0);
        CHECK(one_fails ? ranks[i].rounds <= FAILS_IN + 1 : ranks[i].rounds == ROUNDS);
    }
    plan.b->group_close(contexts, plan.n_ranks);
    plan.b->group_close(contexts, plan.n_ranks); /* there is none any more */
    gather_ranks_close(&plan, ranks);
}

int main(int argc, char **argv)
{
    /* the last is large enough to go another way on some devices */
    static const struct gather_shape shapes[] = {{7, 5}, {30, 64}, {1, 12}, {301, 4096}};
    struct gather_plan plan = {.n_ranks = argc > 2 ? atoi(argv[2]) : 3, .rounds = ROUNDS, .shapes = shapes, .n_shapes = 4, .turn = 10};
    struct err err = {0};
    int numbers = 0;
    backend_expect_group();
    if (backend_find(argc > 1 ? argv[1] : "cpu", &plan.b, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    plan.b->count(&numbers);
    if (plan.n_ranks < 2 || plan.n_ranks > GATHER_RANKS_MAX || numbers < plan.n_ranks) {
        fprintf(stderr, "%d ranks need as many devices, and there are %d\n", plan.n_ranks, numbers);
        return 77;
    }
    run(plan, false);
    run(plan, true);
    return check_result();
}
