/* Collectives of ranks: each gets the columns of all, again and again, small and large, one after the other and two at once; one that fails lets the others go.
 *
 *   test_group [BACKEND] [RANKS]: cpu and 3, or as many devices of another kind; skipped where there are fewer */
#include "kernels/backend.h"
#include "tests/check.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_RANKS = 16, ROUNDS = 60, FAILS_IN = 31, IN_FLIGHT = 2 };

/* What is gathered: the last is large enough to go another way on some devices. */
static const struct {
    int rows, bytes;
} shapes[] = {{7, 5}, {30, 64}, {1, 12}, {301, 4096}};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]), LARGEST = 301 * 4096 };

static const struct backend *b;
static int n_ranks = 3;

struct rank {
    struct kern_ctx *k;
    int rank, rounds, code;
    bool fails;
    struct dev_bytes *part[IN_FLIGHT], *all[IN_FLIGHT], *own;
    unsigned char *host, *got; /* [LARGEST], [ranks * LARGEST] */
};

static unsigned char value(int rank, int row, int i, int round)
{
    return (unsigned char)(31 * rank + 7 * row + i + 13 * round);
}

/* Number `round` of the gathers, into its place of the two that may be under way. */
static int start(struct rank *r, int round)
{
    int rows = shapes[round % SHAPES].rows, bytes = shapes[round % SHAPES].bytes, slot = round % IN_FLIGHT;
    for (int i = 0; i < rows * bytes; i++)
        r->host[i] = value(r->rank, i / bytes, i % bytes, round);
    int code = b->upload(r->k, r->part[slot], r->host, (size_t)(rows * bytes));
    return code < 0 ? code : b->all_gather(r->k, r->all[slot], r->part[slot], (size_t)bytes, rows);
}

/* It has been awaited. */
static int check_gathered(struct rank *r, int round)
{
    int rows = shapes[round % SHAPES].rows, bytes = shapes[round % SHAPES].bytes, slot = round % IN_FLIGHT;
    size_t row = (size_t)bytes * (size_t)n_ranks, all = row * (size_t)rows, part = (size_t)(rows * bytes);
    int code = b->take_columns(r->k, r->own, r->all[slot], (size_t)(r->rank * bytes), (size_t)bytes, row, rows);
    if (code >= 0)
        code = b->download(r->k, r->got, r->all[slot], all);
    if (code >= 0)
        code = b->download(r->k, r->host, r->own, part);
    if (code >= 0)
        code = b->sync(r->k, NULL);
    bool ok = true;
    for (size_t i = 0; i < all && code >= 0; i++)
        ok &= r->got[i] == value((int)(i % row) / bytes, (int)(i / row), (int)(i % row) % bytes, round);
    for (int i = 0; i < (int)part && code >= 0; i++)
        ok &= r->host[i] == value(r->rank, i / bytes, i % bytes, round);
    CHECK(ok);
    return code;
}

/* A gather is read when it is the newest, or, in every other run of ten, while the next one is under way. */
static void *rank_main(void *arg)
{
    struct rank *r = arg;
    for (int round = 0; round < ROUNDS && r->code >= 0; round++) {
        if (r->fails && round == FAILS_IN) {
            b->group_fail(r->k);
            break;
        }
        bool later = round / 10 % 2, before = round % 10 && later, now = !later || round % 10 == 9;
        r->code = start(r, round);
        if (r->code >= 0)
            r->code = b->await_gathers(r->k, now ? 0 : 1);
        if (r->code >= 0 && before)
            r->code = check_gathered(r, round - 1);
        if (r->code >= 0 && now)
            r->code = check_gathered(r, round);
        if (r->code >= 0)
            r->rounds++;
    }
    return NULL;
}

static void open_rank(struct rank *r, int i, bool fails)
{
    struct backend_config c = {.dtype = DTYPE_F32, .device_index = i, .n_threads = 1};
    struct err err = {0};
    *r = (struct rank){.rank = i, .fails = fails, .host = malloc(LARGEST), .got = malloc((size_t)n_ranks * LARGEST)};
    if (!CHECK_INT(b->open(&c, &r->k, &err), 0))
        exit(check_result());
    for (int s = 0; s < IN_FLIGHT; s++) {
        r->part[s] = b->alloc(r->k, LARGEST);
        r->all[s] = b->alloc(r->k, (size_t)n_ranks * LARGEST);
    }
    r->own = b->alloc(r->k, LARGEST);
}

static void close_rank(struct rank *r)
{
    for (int s = 0; s < IN_FLIGHT; s++) {
        b->free(r->k, r->part[s]);
        b->free(r->k, r->all[s]);
    }
    b->free(r->k, r->own);
    b->close(r->k);
    free(r->host);
    free(r->got);
}

static void run(bool one_fails)
{
    static struct rank ranks[MOST_RANKS];
    struct kern_ctx *contexts[MOST_RANKS];
    pthread_t threads[MOST_RANKS];
    struct err err = {0};
    for (int i = 0; i < n_ranks; i++) {
        open_rank(&ranks[i], i, one_fails && i == 1);
        contexts[i] = ranks[i].k;
    }
    if (!CHECK_INT(b->group_open(contexts, n_ranks, &err), 0))
        fprintf(stderr, "  %s\n", err.text);
    for (int i = 0; i < n_ranks; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, rank_main, &ranks[i]), 0);
    for (int i = 0; i < n_ranks; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < n_ranks; i++) {
        CHECK_INT(ranks[i].code, one_fails && i != 1 ? ERR_DEVICE : 0);
        CHECK(one_fails ? ranks[i].rounds <= FAILS_IN + 1 : ranks[i].rounds == ROUNDS);
    }
    b->group_close(contexts, n_ranks);
    b->group_close(contexts, n_ranks); /* there is none any more */
    for (int i = 0; i < n_ranks; i++)
        close_rank(&ranks[i]);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    const char *name = argc > 1 ? argv[1] : "cpu";
    int numbers = 0;
    n_ranks = argc > 2 ? atoi(argv[2]) : n_ranks;
    backend_expect_group();
    if (backend_find(name, &b, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 77;
    }
    b->count(&numbers);
    if (n_ranks < 2 || n_ranks > MOST_RANKS || numbers < n_ranks) {
        fprintf(stderr, "%d ranks need as many devices, and there are %d\n", n_ranks, numbers);
        return 77;
    }
    run(false);
    run(true);
    return check_result();
}
