/* Collectives of CPU ranks: each gets the columns of all, again and again; one that fails lets the others go. */
#include "kernels/backend.h"
#include "kernels/dev_ptr.h"
#include "tests/check.h"
#include <pthread.h>
#include <string.h>

enum { RANKS = 3, ROWS = 7, BYTES = 5, ROUNDS = 200, FAILS_IN = 50 };

static const struct backend *cpu;

struct rank {
    struct kern_ctx *k;
    int rank, rounds, code;
    bool fails;
    unsigned char part[ROWS * BYTES], all[ROWS * RANKS * BYTES], own[ROWS * BYTES];
};

static unsigned char value(int rank, int row, int i, int round)
{
    return (unsigned char)(31 * rank + 7 * row + i + round);
}

static void check_all(const struct rank *r, int round)
{
    bool ok = true;
    for (int row = 0; row < ROWS; row++)
        for (int at = 0; at < RANKS * BYTES; at++)
            ok &= r->all[row * RANKS * BYTES + at] == value(at / BYTES, row, at % BYTES, round);
    CHECK(ok);
    CHECK(!memcmp(r->own, r->part, sizeof(r->own)));
}

static void *rank_main(void *arg)
{
    struct rank *r = arg;
    for (int round = 0; round < ROUNDS && r->code >= 0; round++) {
        if (r->fails && round == FAILS_IN) {
            cpu->group_fail(r->k);
            break;
        }
        for (int i = 0; i < ROWS * BYTES; i++)
            r->part[i] = value(r->rank, i / BYTES, i % BYTES, round);
        r->code = cpu->all_gather(r->k, to_dev(r->all), to_dev(r->part), BYTES, ROWS);
        if (r->code >= 0)
            r->code = cpu->take_columns(r->k, to_dev(r->own), to_dev(r->all), (size_t)r->rank * BYTES, BYTES, RANKS * BYTES, ROWS);
        if (r->code >= 0) {
            check_all(r, round);
            r->rounds++;
        }
    }
    return NULL;
}

static void run(bool one_fails)
{
    static struct rank ranks[RANKS];
    struct kern_ctx *contexts[RANKS];
    pthread_t threads[RANKS];
    struct err err;
    for (int i = 0; i < RANKS; i++) {
        struct backend_config c = {.dtype = DTYPE_F32, .device_index = i, .n_threads = 1};
        ranks[i] = (struct rank){.rank = i, .fails = one_fails && i == 1};
        CHECK_INT(cpu->open(&c, &ranks[i].k, &err), 0);
        contexts[i] = ranks[i].k;
    }
    CHECK_INT(cpu->group_open(contexts, RANKS, &err), 0);
    for (int i = 0; i < RANKS; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, rank_main, &ranks[i]), 0);
    for (int i = 0; i < RANKS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < RANKS; i++) {
        CHECK_INT(ranks[i].code, one_fails && i != 1 ? ERR_DEVICE : 0);
        CHECK(one_fails ? ranks[i].rounds <= FAILS_IN : ranks[i].rounds == ROUNDS);
    }
    cpu->group_close(contexts, RANKS);
    cpu->group_close(contexts, RANKS); /* there is none any more */
    for (int i = 0; i < RANKS; i++)
        cpu->close(ranks[i].k);
}

int main(void)
{
    struct err err;
    if (!CHECK_INT(backend_find("cpu", &cpu, &err), 0))
        return check_result();
    run(false);
    run(true);
    return check_result();
}
