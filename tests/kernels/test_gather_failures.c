/* Gathers by copy engines while every CUDA call of one device fails in turn, from the first to the last, and all after it: the ranks end, each with what it was to get
 * or with the device's error, none waits for the other, and everything closes. Skipped without two devices. */
#include "kernels/backend.h"
#include "tests/check.h"
#include "tests/kernels/failing_cuda.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 2, ROWS = 301, BYTES = 4096, PART = ROWS * BYTES, ROUNDS = 6, IN_FLIGHT = 2 };

static const struct backend *b;

struct rank {
    struct kern_ctx *k;
    int rank, code;
    struct dev_bytes *part[IN_FLIGHT], *all[IN_FLIGHT];
    unsigned char *host, *got; /* [PART], [RANKS * PART] */
};

static unsigned char value(int rank, int row, int i, int round)
{
    return (unsigned char)(31 * rank + 7 * row + i + 13 * round);
}

static int start(struct rank *r, int round)
{
    for (int i = 0; i < PART; i++)
        r->host[i] = value(r->rank, i / BYTES, i % BYTES, round);
    int code = b->upload(r->k, r->part[round % IN_FLIGHT], r->host, PART);
    return code < 0 ? code : b->all_gather(r->k, r->all[round % IN_FLIGHT], r->part[round % IN_FLIGHT], BYTES, ROWS);
}

static int check_gathered(struct rank *r, int round)
{
    int code = b->download(r->k, r->got, r->all[round % IN_FLIGHT], (size_t)RANKS * PART);
    if (code >= 0)
        code = b->sync(r->k, NULL);
    bool ok = true;
    for (int i = 0; i < RANKS * PART && code >= 0; i++)
        ok &= r->got[i] == value(i % (RANKS * BYTES) / BYTES, i / (RANKS * BYTES), i % BYTES, round);
    CHECK(ok);
    return code;
}

/* Each gather is read while the next is under way. */
static void *rank_main(void *arg)
{
    struct rank *r = arg;
    for (int round = 0; round < ROUNDS && r->code >= 0; round++) {
        bool last = round == ROUNDS - 1;
        r->code = start(r, round);
        if (r->code >= 0)
            r->code = b->await_gathers(r->k, last ? 0 : 1);
        if (r->code >= 0 && round)
            r->code = check_gathered(r, round - 1);
        if (r->code >= 0 && last)
            r->code = check_gathered(r, round);
    }
    if (r->code < 0)
        b->group_fail(r->k);
    return NULL;
}

static void open_rank(struct rank *r, int i)
{
    struct backend_config c = {.dtype = DTYPE_F32, .device_index = i, .n_threads = 1};
    struct err err = {0};
    *r = (struct rank){.rank = i, .host = malloc(PART), .got = malloc((size_t)RANKS * PART)};
    if (!CHECK_INT(b->open(&c, &r->k, &err), 0))
        exit(check_result());
    for (int s = 0; s < IN_FLIGHT; s++) {
        r->part[s] = b->alloc(r->k, PART);
        r->all[s] = b->alloc(r->k, (size_t)RANKS * PART);
    }
}

static void close_rank(struct rank *r)
{
    for (int s = 0; s < IN_FLIGHT; s++) {
        b->free(r->k, r->part[s]);
        b->free(r->k, r->all[s]);
    }
    b->close(r->k);
    free(r->host);
    free(r->got);
}

/* Call n on `device` fails, 0: none. Returns the calls made on it until the ranks ended; *ret_failed: something failed. */
static int run(int device, int n, bool *ret_failed)
{
    static struct rank ranks[RANKS];
    struct kern_ctx *contexts[RANKS];
    pthread_t threads[RANKS];
    struct err err = {0};
    for (int i = 0; i < RANKS; i++) {
        open_rank(&ranks[i], i);
        contexts[i] = ranks[i].k;
    }
    failing_cuda_device_at(device, n);
    int opened = b->group_open(contexts, RANKS, &err);
    CHECK(opened >= 0 || err.text[0]);
    *ret_failed = opened < 0;
    for (int i = 0; i < RANKS && opened >= 0; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, rank_main, &ranks[i]), 0);
    for (int i = 0; i < RANKS && opened >= 0; i++) {
        pthread_join(threads[i], NULL);
        CHECK(ranks[i].code == 0 || ranks[i].code == ERR_DEVICE);
        *ret_failed |= ranks[i].code < 0;
    }
    int calls = failing_cuda_calls();
    b->group_close(contexts, RANKS);
    for (int i = 0; i < RANKS; i++)
        close_rank(&ranks[i]);
    failing_cuda_at(0);
    return calls;
}

int main(void)
{
    struct err err = {0};
    int n_devices = 0, runs = 0;
    bool failed;
    backend_expect_group();
    if (backend_find("cuda", &b, &err) < 0) {
        printf("skipped: %s\n", err.text);
        return 77;
    }
    b->count(&n_devices);
    if (n_devices < RANKS) {
        printf("skipped: %d devices, and %d are needed\n", n_devices, RANKS);
        return 77;
    }
    for (int device = 0; device < RANKS; device++) {
        int calls = run(device, 0, &failed);
        CHECK(!failed);
        for (int n = 1; n <= calls; n++, runs++) {
            run(device, n, &failed);
            CHECK(failed);
        }
    }
    printf("%d runs, in each of which one call failed\n", runs);
    return check_result();
}
