/* Charges: limits, giving back, what is told of a refusal, and many threads at once. */
#include "common/arena.h"
#include "common/budget.h"
#include "tests/check.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define MIB ((size_t)1 << 20)

static struct budget budget;

static void test_charges(void)
{
    struct charge a = {.budget = &budget}, b = {.budget = &budget};
    struct err err;
    budget_init(&budget, 10 * MIB);
    CHECK(charge_take(&a, 6 * MIB) && charge_take(&b, 4 * MIB) && charge_take(&a, 0));
    CHECK(!charge_take(&a, 1));
    CHECK_INT(a.refused, 6 * MIB + 1);
    CHECK_INT(charge_error(&a, &err), ERR_BUSY); /* it would fit alone */
    CHECK(strstr(err.text, "10 of 10 MiB") != NULL);
    CHECK(!charge_take(&b, 7 * MIB));
    CHECK_INT(charge_error(&b, &err), ERR_TOO_LARGE);
    CHECK(!charge_take(&b, (size_t)-1));
    CHECK_INT(charge_error(&b, &err), ERR_TOO_LARGE);
    CHECK(charge_change(&b, 4 * MIB, 1 * MIB) && charge_change(&a, 6 * MIB, 9 * MIB) && !charge_change(&b, 1 * MIB, 2 * MIB));
    CHECK_INT(b.taken, MIB);
    CHECK_INT(b.peak, 4 * MIB);
    charge_done(&a);
    charge_done(&b);
    charge_done(&b);
    CHECK_INT(budget.used, 0);
    CHECK(charge_take(NULL, MIB));
    charge_give(NULL, MIB);
    struct charge free_of_limits = {0};
    CHECK(charge_take(&free_of_limits, 1000 * MIB));
    CHECK_INT(free_of_limits.peak, 1000 * MIB);
}

static void test_arena(void)
{
    struct charge c = {.budget = &budget};
    struct arena a;
    budget_init(&budget, 3 * MIB);
    arena_init(&a, 100 * MIB);
    a.charge = &c;
    CHECK(arena_alloc(&a, 1, 10) && c.taken > 10 && c.taken < MIB);
    CHECK(arena_alloc(&a, 2, MIB) && c.taken >= 2 * MIB);
    CHECK(!arena_alloc(&a, 2, MIB) && c.refused > 4 * MIB);
    CHECK(arena_alloc(&a, 1, 10) != NULL);
    arena_done(&a);
    CHECK_INT(c.taken, 0);
    CHECK_INT(budget.used, 0);
}

/* There is room for one of them. Each goes on until it was let in this often: who is in may hold all there is for as long as it does not run. */
enum { N_THREADS = 4, TAKES = 200000 };

static atomic_size_t most_used;

static void *take_and_give(void *user)
{
    struct charge c = {.budget = &budget};
    time_t until = time(NULL) + 60;
    int taken = 0;
    (void)user;
    while (taken < TAKES && time(NULL) < until)
        if (charge_take(&c, MIB)) {
            size_t used = budget.used, most = atomic_load(&most_used);
            while (used > most && !atomic_compare_exchange_weak(&most_used, &most, used))
                ;
            charge_give(&c, MIB);
            taken++;
        } else {
            sched_yield();
        }
    charge_done(&c);
    CHECK_INT(taken, TAKES);
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[N_THREADS];
    budget_init(&budget, MIB);
    for (int i = 0; i < N_THREADS; i++)
        if (!CHECK_INT(pthread_create(&threads[i], NULL, take_and_give, NULL), 0))
            exit(1);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(atomic_load(&most_used), MIB);
    CHECK_INT(budget.used, 0);
}

int main(void)
{
    test_charges();
    test_arena();
    test_threads();
    return check_result();
}
