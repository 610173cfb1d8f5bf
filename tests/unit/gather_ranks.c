#include "tests/unit/gather_ranks.h"
#include "tests/check.h"
#include <pthread.h>
#include <stdlib.h>

static unsigned char value(int rank, int row, int i, int round)
{
    return (unsigned char)(31 * rank + 7 * row + i + 13 * round);
}

static struct gather_shape shape_of(const struct gather_plan *p, int round)
{
    return p->shapes[round % p->n_shapes];
}

/* Number `round` of the gathers, into its place of those that may be under way. */
static int start(struct gather_rank *r, int round)
{
    const struct backend *b = r->plan->b;
    struct gather_shape s = shape_of(r->plan, round);
    int slot = round % GATHERS_IN_FLIGHT, part = s.rows * s.bytes;
    for (int i = 0; i < part; i++)
        r->host[i] = value(r->rank, i / s.bytes, i % s.bytes, round);
    int code = b->upload(r->k, r->part[slot], r->host, (size_t)part);
    return code < 0 ? code : b->all_gather(r->k, r->all[slot], r->part[slot], (size_t)s.bytes, s.rows);
}

/* It has been awaited. */
static int check_gathered(struct gather_rank *r, int round)
{
    const struct backend *b = r->plan->b;
    struct gather_shape s = shape_of(r->plan, round);
    const struct dev_bytes *gathered = r->all[round % GATHERS_IN_FLIGHT];
    size_t row = (size_t)s.bytes * (size_t)r->plan->n_ranks, all = row * (size_t)s.rows, part = (size_t)(s.rows * s.bytes);
    int code = b->take_columns(r->k, r->own, gathered, (size_t)(r->rank * s.bytes), (size_t)s.bytes, row, s.rows);
    if (code >= 0)
        code = b->download(r->k, r->got, gathered, all);
    if (code >= 0)
        code = b->download(r->k, r->host, r->own, part);
    if (code >= 0)
        code = b->sync(r->k, NULL);
    bool ok = true;
    for (size_t i = 0; i < all && code >= 0; i++)
        ok &= r->got[i] == value((int)(i % row) / s.bytes, (int)(i / row), (int)(i % row) % s.bytes, round);
    for (int i = 0; i < (int)part && code >= 0; i++)
        ok &= r->host[i] == value(r->rank, i / s.bytes, i % s.bytes, round);
    CHECK(ok);
    return code;
}

static int run_round(struct gather_rank *r, int round)
{
    int turn = r->plan->turn;
    bool later = round / turn % 2, before = round % turn && later, now = !later || round % turn == turn - 1;
    int code = start(r, round);
    if (code >= 0)
        code = r->plan->b->await_gathers(r->k, now ? 0 : 1);
    if (code >= 0 && before)
        code = check_gathered(r, round - 1);
    return code >= 0 && now ? check_gathered(r, round) : code;
}

static void *rank_main(void *arg)
{
    struct gather_rank *r = arg;
    bool leaves = false;
    for (int round = 0; round < r->plan->rounds && r->code >= 0 && !leaves; round++) {
        leaves = r->rank == 1 && round == r->plan->fails_in;
        if (!leaves)
            r->code = run_round(r, round);
        r->rounds += !leaves && r->code >= 0;
    }
    if (leaves || r->code < 0)
        r->plan->b->group_fail(r->k);
    return NULL;
}

static void open_rank(const struct gather_plan *p, struct gather_rank *r, int i)
{
    struct backend_config c = {.dtype = DTYPE_F32, .device_index = i, .n_threads = 1};
    struct gather_shape s = p->shapes[p->n_shapes - 1];
    size_t part = (size_t)(s.rows * s.bytes), all = part * (size_t)p->n_ranks;
    struct err err = {0};
    *r = (struct gather_rank){.plan = p, .rank = i, .host = malloc(part), .got = malloc(all)};
    if (!CHECK_INT(p->b->open(&c, &r->k, &err), 0))
        exit(check_result());
    for (int slot = 0; slot < GATHERS_IN_FLIGHT; slot++) {
        r->part[slot] = p->b->alloc(r->k, part);
        r->all[slot] = p->b->alloc(r->k, all);
    }
    r->own = p->b->alloc(r->k, part);
}

void gather_ranks_open(const struct gather_plan *p, struct gather_rank *ranks, struct kern_ctx **contexts)
{
    for (int i = 0; i < p->n_ranks; i++) {
        open_rank(p, &ranks[i], i);
        contexts[i] = ranks[i].k;
    }
}

void gather_ranks_run(const struct gather_plan *p, struct gather_rank *ranks)
{
    pthread_t threads[GATHER_RANKS_MAX];
    for (int i = 0; i < p->n_ranks; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, rank_main, &ranks[i]), 0);
    for (int i = 0; i < p->n_ranks; i++)
        pthread_join(threads[i], NULL);
}

void gather_ranks_close(const struct gather_plan *p, struct gather_rank *ranks)
{
    for (int i = 0; i < p->n_ranks; i++) {
        struct gather_rank *r = &ranks[i];
        for (int slot = 0; slot < GATHERS_IN_FLIGHT; slot++) {
            p->b->free(r->k, r->part[slot]);
            p->b->free(r->k, r->all[slot]);
        }
        p->b->free(r->k, r->own);
        p->b->close(r->k);
        free(r->host);
        free(r->got);
    }
}
