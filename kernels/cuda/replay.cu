/* Sequences of ops as CUDA graphs: what is issued again and again with the same arguments (a decoding step) costs one launch.
 *
 * A sequence is recorded the second time it is asked for: the first run has set every kernel's attributes and grown the scratch memory, and
 * what comes once only is not worth a recording. Recordings hold addresses of scratch memory, so they go when that moves.
 *
 * Ops that may run beside others do so in recordings only, where a fork costs no launches: their kernels are captured on a second stream, which forks from the first by
 * one event and joins it by another. They have scratch memory of their own whether or not they are recorded, so that the first run grows what the recording uses. */
#include "kernels/cuda/cuda_ctx.cuh"
#include <string.h>

static struct recording *find(struct cuda_ctx *c, const void *key, size_t key_bytes)
{
    struct recording *oldest = &c->recordings[0];
    for (struct recording &r : c->recordings) {
        if (r.key_bytes == key_bytes && !memcmp(r.key, key, key_bytes))
            return &r;
        if (r.used < oldest->used)
            oldest = &r;
    }
    if (oldest->graph)
        cudaGraphExecDestroy(oldest->graph);
    *oldest = {};
    memcpy(oldest->key, key, key_bytes);
    oldest->key_bytes = key_bytes;
    return oldest;
}

void cuda_drop_recordings(struct cuda_ctx *c)
{
    for (struct recording &r : c->recordings) {
        if (r.graph)
            cudaGraphExecDestroy(r.graph);
        r = {};
    }
}

static int issue_chained(struct cuda_ctx *c, int (*issue)(void *arg), void *arg)
{
    c->chained = c->chains;
    int code = issue(arg);
    c->chained = false;
    return code;
}

static int record(struct cuda_ctx *c, struct recording *r, int (*issue)(void *arg), void *arg)
{
    cudaGraph_t graph = NULL;
    int code = CU(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    if (code < 0)
        return code;
    c->recording = true;
    code = issue_chained(c, issue, arg);
    c->recording = false;
    int ended = CU(c, cudaStreamEndCapture(c->stream, &graph));
    if (code >= 0)
        code = ended;
    if (code >= 0)
        code = CU(c, cudaGraphInstantiate(&r->graph, graph, 0));
    if (graph)
        cudaGraphDestroy(graph);
    return code;
}

static int replay_cuda(struct kern_ctx *k, const void *key, size_t key_bytes, int (*issue)(void *arg), void *arg)
{
    struct cuda_ctx *c = ctx_of(k);
    if (key_bytes > RECORDING_KEY_MAX || c->failed.code)
        return issue(arg);
    struct recording *r = find(c, key, key_bytes);
    bool seen = r->used > 0;
    r->used = ++c->n_replays;
    if (!seen)
        return issue_chained(c, issue, arg);
    int code = r->graph ? 0 : record(c, r, issue, arg);
    return code < 0 ? code : CU(c, cudaGraphLaunch(r->graph, c->stream));
}

/* On the second stream, from where the first one was when `forks` was recorded. Joined after a failure too, as far as that goes: a capture cannot end on two streams. */
static int issue_beside(struct cuda_ctx *c, int (*issue)(void *arg), void *arg)
{
    cudaStream_t first = c->stream;
    int code = CU(c, cudaStreamWaitEvent(c->beside_stream, c->forks, 0));
    if (code < 0)
        return code;
    c->stream = c->beside_stream;
    code = issue(arg);
    c->stream = first;
    int joined = CU(c, cudaEventRecord(c->joins, c->beside_stream));
    if (joined >= 0)
        joined = CU(c, cudaStreamWaitEvent(c->stream, c->joins, 0));
    return code < 0 ? code : joined;
}

static int beside_cuda(struct kern_ctx *k, int (*one)(void *arg), int (*other)(void *arg), void *arg)
{
    struct cuda_ctx *c = ctx_of(k);
    int code = c->recording ? CU(c, cudaEventRecord(c->forks, c->stream)) : 0;
    if (code >= 0)
        code = one(arg);
    if (code < 0)
        return code;
    c->beside = true;
    code = c->recording ? issue_beside(c, other, arg) : other(arg);
    c->beside = false;
    return code < 0 ? code : 0;
}

void replay_cuda_init(struct kern_ops *o)
{
    o->replay = replay_cuda;
    o->beside = beside_cuda;
}
