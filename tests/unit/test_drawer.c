/* Rows drawn together are drawn as each alone, on any number of threads; what is not finite is not drawn; without memory nothing is left. */
#include "engine/model/drawer.h"
#include "tests/check.h"
#include "tests/fail/failing.h"
#include <math.h>

enum { V = 300, N = 70 };

static void fill(float *logits, int row)
{
    for (int i = 0; i < V; i++)
        logits[i] = (float)((i * (row + 3)) % 97) * 0.1f;
}

static void test_rows(void)
{
    static const struct sampler_params kinds[] = {{0.7f, 0, 1, 1}, {1, 5, 1, 2}, {1.5f, 0, 0.8f, 3}};
    static float alone[V];
    struct draw draws[N];
    const struct draw *list[N];
    struct sampler *sampler;
    struct err err;
    CHECK_INT(sampler_new(V, &sampler), 0);
    for (int i = 0; i < N; i++) {
        draws[i] = (struct draw){.params = &kinds[i % 3], .index = (uint64_t)i};
        list[i] = &draws[i];
    }
    for (int threads = 1; threads <= 6; threads += 2) {
        struct drawer *d;
        int32_t tokens[N];
        if (!CHECK_INT(drawer_new(V, threads, &d, &err), 0) || !CHECK(drawer_capacity(d) >= N))
            return;
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < N; i++)
                fill(drawer_logits(d, i), i);
            drawer_logits(d, 7)[round * 9] = round ? INFINITY : NAN;
            drawer_run(d, list, N, tokens);
            for (int i = 0; i < N; i++) {
                fill(alone, i);
                CHECK_INT(tokens[i], i == 7 ? -1 : sampler_pick(sampler, alone, draws[i].params, draws[i].index));
            }
        }
        drawer_free(d);
    }
    sampler_free(sampler);
}

static void test_no_memory(void)
{
    bool reached = true;
    for (int n = 0; reached; n++) {
        struct drawer *d = NULL;
        struct err err = {0};
        long live = failing_live();
        failing_plan(n);
        int r = drawer_new(V, 1, &d, &err);
        reached = failing_reached();
        CHECK_INT(r, reached ? ERR_NOMEM : 0);
        drawer_free(d);
        CHECK_INT(failing_live(), live);
    }
}

int main(void)
{
    failing_init();
    test_rows();
    test_no_memory();
    return check_result();
}
