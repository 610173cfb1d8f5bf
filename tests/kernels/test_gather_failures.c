/* Gathers by copy engines while every CUDA call of one device fails in turn, from the first to the last, and all after it: the ranks end, each with what it was to get
 * or with the device's error, none waits for the other, and everything closes. Skipped without two devices. */
#include "tests/check.h"
#include "tests/kernels/failing_cuda.h"
#include "tests/unit/gather_ranks.h"

enum { RANKS = 2, ROUNDS = 6 };

/* Call n on `device` fails, 0: none. Returns the calls made on it until the ranks ended; *ret_failed: something failed. */
static int run(const struct gather_plan *plan, int device, int n, bool *ret_failed)
{
    static struct gather_rank ranks[RANKS];
    struct kern_ctx *contexts[RANKS];
    struct err err = {0};
    gather_ranks_open(plan, ranks, contexts);
    failing_cuda_device_at(device, n);
    int opened = plan->b->group_open(contexts, RANKS, &err);
    CHECK(opened >= 0 || err.text[0]);
    if (opened >= 0)
        gather_ranks_run(plan, ranks);
    *ret_failed = opened < 0;
    for (int i = 0; i < RANKS; i++) {
        CHECK(ranks[i].code == 0 || ranks[i].code == ERR_DEVICE);
        *ret_failed |= ranks[i].code < 0;
    }
    int calls = failing_cuda_calls();
    plan->b->group_close(contexts, RANKS);
    gather_ranks_close(plan, ranks);
    failing_cuda_at(0);
    return calls;
}

int main(void)
{
    static const struct gather_shape large = {301, 4096};
    struct gather_plan plan = {.n_ranks = RANKS, .rounds = ROUNDS, .shapes = &large, .n_shapes = 1, .turn = ROUNDS / 2, .fails_in = -1};
    struct err err = {0};
    int n_devices = 0, runs = 0;
    bool failed;
    backend_expect_group();
    if (backend_find("cuda", &plan.b, &err) < 0) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    plan.b->count(&n_devices);
    if (n_devices < RANKS) {
        printf("skipped: %d devices, and %d are needed\n", n_devices, RANKS);
        return 77;
    }
    for (int device = 0; device < RANKS; device++) {
        int calls = run(&plan, device, 0, &failed);
        CHECK(!failed);
        for (int n = 1; n <= calls; n++, runs++) {
            run(&plan, device, n, &failed);
            CHECK(failed);
        }
    }
    printf("%d runs, in each of which one call failed\n", runs);
    return check_result();
}
