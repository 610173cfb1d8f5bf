/* Gathers by the copy engines: each rank writes its columns to where they belong in every rank's array, beside what its multiprocessors compute. A rank's copies wait, by events, until
 * the others' arrays may be written, and a rank that reads waits for the others' copies. An event must have been recorded before another thread can wait for it, so ranks
 * tell one another how far they have got; the host runs ahead of the devices, so this costs them nothing. */
#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/group.cuh"

/* An event is recorded again GATHER_SLOTS gathers later, by when everyone who waits for it has said so: a rank that starts gather i waits for all up to i - 2. */
static_assert(GATHER_SLOTS >= 4, "a slot would be used again while it is read");

static bool all_reach(struct kern_ctx *const *ranks, int n)
{
    bool reach = true;
    for (int i = 0; i < n && reach; i++) {
        reach = cuda_bind(ctx_of(ranks[i])) >= 0;
        for (int j = 0; j < n && reach; j++)
            reach = j == i || copies_reach(ctx_of(ranks[i]), ctx_of(ranks[j])->device);
    }
    return reach;
}

static int open_rank(struct cuda_ctx *c, struct gather_rank *r)
{
    int code = cuda_bind(c);
    if (code >= 0)
        code = CU(c, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking));
    for (int i = 0; i < GATHER_SLOTS && code >= 0; i++) {
        code = CU(c, cudaEventCreateWithFlags(&r->ready[i], cudaEventDisableTiming));
        if (code >= 0)
            code = CU(c, cudaEventCreateWithFlags(&r->sent[i], cudaEventDisableTiming));
    }
    return code;
}

int gather_direct_open(struct cuda_group *g, struct kern_ctx *const *ranks)
{
    int code = 0;
    bool reach = all_reach(ranks, g->n);
    for (int i = 0; i < g->n && reach && code >= 0; i++)
        code = open_rank(ctx_of(ranks[i]), &g->ranks[i]);
    return code;
}

void gather_direct_close(struct cuda_group *g, struct kern_ctx *const *ranks)
{
    for (int i = 0; i < g->n; i++) { /* all copies end before an array of theirs is freed */
        cuda_bind(ctx_of(ranks[i]));
        if (g->ranks[i].stream)
            cudaStreamSynchronize(g->ranks[i].stream);
    }
    for (int i = 0; i < g->n; i++) {
        struct gather_rank *r = &g->ranks[i];
        cuda_bind(ctx_of(ranks[i]));
        for (int s = 0; s < GATHER_SLOTS; s++) {
            if (r->ready[s])
                cudaEventDestroy(r->ready[s]);
            if (r->sent[s])
                cudaEventDestroy(r->sent[s]);
        }
        if (r->stream)
            cudaStreamDestroy(r->stream);
    }
}

/* A rank's n_ready or n_sent. */
typedef unsigned long gather_rank::*progress;

static void tell(struct cuda_group *g, struct gather_rank *me, progress p)
{
    pthread_mutex_lock(&g->lock);
    me->*p += 1;
    pthread_cond_broadcast(&g->told);
    pthread_mutex_unlock(&g->lock);
}

/* Until all ranks have told n of p; ERR_DEVICE if one fails before. */
static int await_ranks(struct cuda_ctx *c, progress p, unsigned long n)
{
    struct cuda_group *g = c->group;
    pthread_mutex_lock(&g->lock);
    for (int i = 0; i < g->n && !g->failed; i++)
        while (g->ranks[i].*p < n && !g->failed)
            pthread_cond_wait(&g->told, &g->lock);
    bool failed = g->failed;
    pthread_mutex_unlock(&g->lock);
    return failed ? cuda_failed(c, cudaErrorUnknown, "a gather: another device of the group has failed") : 0;
}

/* From now on the rank's stream waits for its gathers 0 .. n - 1. */
static int await_first(struct cuda_ctx *c, unsigned long n)
{
    struct cuda_group *g = c->group;
    struct gather_rank *me = &g->ranks[c->rank];
    if (n <= me->n_awaited)
        return 0;
    int code = await_ranks(c, &gather_rank::n_sent, n);
    for (int i = 0; i < g->n && code >= 0; i++) /* a rank's copies are in order: its latest event stands for those before */
        code = CU(c, cudaStreamWaitEvent(c->stream, g->ranks[i].sent[(n - 1) % GATHER_SLOTS], 0));
    me->n_awaited = n;
    return code;
}

int gather_direct_await(struct cuda_ctx *c, int but)
{
    unsigned long started = c->group->ranks[c->rank].n_sent;
    return started > (unsigned long)but ? await_first(c, started - (unsigned long)but) : 0;
}

int gather_direct(struct cuda_ctx *c, char *dst, const char *src, size_t bytes, int rows)
{
    struct cuda_group *g = c->group;
    struct gather_rank *me = &g->ranks[c->rank];
    unsigned long i = me->n_sent;
    int slot = (int)(i % GATHER_SLOTS), code = gather_direct_await(c, 1);
    if (code >= 0)
        code = CU(c, cudaEventRecord(me->ready[slot], c->stream));
    if (code < 0)
        return code;
    me->dst[slot] = dst;
    tell(g, me, &gather_rank::n_ready);
    code = await_ranks(c, &gather_rank::n_ready, i + 1);
    for (int rank = 0; rank < g->n && code >= 0; rank++)
        code = CU(c, cudaStreamWaitEvent(me->stream, g->ranks[rank].ready[slot], 0));
    for (int next = 1; next <= g->n && code >= 0; next++) { /* every rank begins with another one; with itself it ends */
        char *to = g->ranks[(c->rank + next) % g->n].dst[slot] + c->rank * bytes;
        code = CU(c, cudaMemcpy2DAsync(to, bytes * g->n, src, bytes, bytes, rows, cudaMemcpyDefault, me->stream));
    }
    if (code >= 0)
        code = CU(c, cudaEventRecord(me->sent[slot], me->stream));
    if (code >= 0)
        tell(g, me, &gather_rank::n_sent);
    return code;
}
