/* Memory of a device, copies through pinned buffers, marks and time stamps on the stream. */
#include "kernels/cuda/copies.cuh"
#include "kernels/dev_ptr.h"
#include <string.h>
extern "C" {
#include "common/thread.h"
}

/* Host memory is copied to the ring by one thread below POOL_FROM bytes, above by as many as there are, up to POOL_MOST: more are no faster. */
enum { POOL_FROM = 1 << 20, POOL_MOST = 16, PIECE = 128 << 10 };

struct dev_bytes *copies_alloc(struct kern_ctx *k, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    void *p = NULL;
    return cuda_enter(c) < 0 || CU(c, cudaMalloc(&p, bytes ? bytes : 1)) < 0 ? NULL : to_dev(p);
}

void copies_free(struct kern_ctx *k, struct dev_bytes *p)
{
    if (p && cuda_bind(ctx_of(k)) >= 0)
        CU(ctx_of(k), cudaFree(bytes_of(p)));
}

/* The current part is full: marks where its copies end, and waits until the next part is free. */
static int next_part(struct cuda_ctx *c)
{
    struct stage_ring *u = &c->up;
    int r = CU(c, cudaEventRecord(u->done[u->part], c->stream));
    u->part = (u->part + 1) % STAGE_PARTS;
    u->used = 0;
    return r < 0 ? r : CU(c, cudaEventSynchronize(u->done[u->part]));
}

struct filling {
    char *stage;
    const char *src;
    size_t bytes;
};

static void fill_piece(void *arg, int i, int thread)
{
    const struct filling *f = (const struct filling *)arg;
    size_t at = (size_t)i * PIECE, n = f->bytes - at < PIECE ? f->bytes - at : PIECE;
    memcpy(f->stage + at, f->src + at, n);
}

/* src may be a mapped file: the threads share the faults too. */
static void fill_stage(struct cuda_ctx *c, char *stage, const char *src, size_t bytes)
{
    struct filling f = {stage, src, bytes};
    if (c->pool && bytes > PIECE)
        parallel_for(c->pool, (int)((bytes + PIECE - 1) / PIECE), fill_piece, &f);
    else
        memcpy(stage, src, bytes);
}

/* Without it uploads are slower. */
static void want_pool(struct cuda_ctx *c)
{
    int n = c->n_threads < POOL_MOST ? c->n_threads : POOL_MOST;
    if (!c->pool && n > 1)
        thread_pool_new(n, NULL, &c->pool, NULL);
}

int copies_upload(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    struct stage_ring *u = &c->up;
    int r = cuda_enter(c);
    if (bytes >= POOL_FROM)
        want_pool(c);
    for (size_t done = 0; r >= 0 && done < bytes;) {
        if (u->used == u->part_bytes && (r = next_part(c)) < 0)
            break;
        size_t n = bytes - done < u->part_bytes - u->used ? bytes - done : u->part_bytes - u->used;
        char *stage = u->base + u->part * u->part_bytes + u->used;
        fill_stage(c, stage, (const char *)src + done, n);
        r = CU(c, cudaMemcpyAsync((char *)bytes_of(dst) + done, stage, n, cudaMemcpyHostToDevice, c->stream));
        size_t taken = (n + 63) & ~(size_t)63;
        u->used = taken < u->part_bytes - u->used ? u->used + taken : u->part_bytes;
        done += n;
    }
    return r;
}

bool copies_reach(struct cuda_ctx *c, int device)
{
    int can = 0;
    cudaError_t e = cudaDeviceCanAccessPeer(&can, c->device, device);
    if (e == cudaSuccess && can)
        e = cudaDeviceEnablePeerAccess(device, 0);
    cudaGetLastError();
    return can && (e == cudaSuccess || e == cudaErrorPeerAccessAlreadyEnabled);
}

/* Copies between devices that do not reach one another go through host memory. */
static void reach_peer(struct cuda_ctx *c, int device)
{
    uint64_t bit = (uint64_t)1 << (device & 63);
    if (device != c->device && !(c->peers & bit))
        copies_reach(c, device);
    c->peers |= bit;
}

int copies_peer(struct kern_ctx *k, struct dev_bytes *dst, struct kern_ctx *from, const struct dev_bytes *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    if (r >= 0)
        reach_peer(c, ctx_of(from)->device);
    return r < 0 || !bytes ? r
                           : CU(c, cudaMemcpyPeerAsync(bytes_of(dst), c->device, bytes_of(src), ctx_of(from)->device, bytes, c->stream));
}

static int finish_downloads(struct cuda_ctx *c)
{
    int r = CU(c, cudaStreamSynchronize(c->stream));
    for (int i = 0; r >= 0 && i < c->n_pending; i++)
        memcpy(c->pending[i].dst, c->down + c->pending[i].offset, c->pending[i].bytes);
    c->n_pending = 0;
    c->down_used = 0;
    return r < 0 ? r : c->failed.code;
}

int copies_download(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    for (size_t done = 0; r >= 0 && done < bytes;) {
        if ((c->down_used == c->down_bytes || c->n_pending == DOWNLOADS_MAX) && (r = finish_downloads(c)) < 0)
            break;
        size_t room = c->down_bytes - c->down_used, n = bytes - done < room ? bytes - done : room;
        r = CU(c, cudaMemcpyAsync(c->down + c->down_used, (const char *)bytes_of(src) + done, n, cudaMemcpyDeviceToHost, c->stream));
        c->pending[c->n_pending++] = {(char *)dst + done, c->down_used, n};
        c->down_used += n;
        done += n;
    }
    return r;
}

int copies_sync(struct kern_ctx *k, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_bind(c);
    if (r >= 0)
        r = finish_downloads(c);
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : 0;
}

void *copies_alloc_host(struct kern_ctx *k, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    void *p = NULL;
    return cuda_enter(c) < 0 || CU(c, cudaMallocHost(&p, bytes ? bytes : 1)) < 0 ? NULL : p;
}

void copies_free_host(struct kern_ctx *k, void *p)
{
    if (p && cuda_bind(ctx_of(k)) >= 0)
        CU(ctx_of(k), cudaFreeHost(p));
}

int copies_fetch(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 || !bytes ? r : CU(c, cudaMemcpyAsync(dst, bytes_of(src), bytes, cudaMemcpyDeviceToHost, c->stream));
}

int copies_mark(struct kern_ctx *k, int i)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : CU(c, cudaEventRecord(c->marks[i], c->stream));
}

int copies_wait(struct kern_ctx *k, int i, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    if (r >= 0)
        r = CU(c, cudaEventSynchronize(c->marks[i]));
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : 0;
}

int copies_stamp(struct kern_ctx *k, int i)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    if (r >= 0 && !c->stamps[i])
        r = CU(c, cudaEventCreate(&c->stamps[i]));
    return r < 0 ? r : CU(c, cudaEventRecord(c->stamps[i], c->stream));
}

double copies_stamp_seconds(struct kern_ctx *k, int a, int b)
{
    struct cuda_ctx *c = ctx_of(k);
    float ms;
    if (cuda_enter(c) < 0)
        return -1;
    if (cudaEventElapsedTime(&ms, c->stamps[a], c->stamps[b]) == cudaSuccess)
        return 1e-3 * ms;
    cudaGetLastError(); /* not yet; a device that failed says so in other calls */
    return -1;
}

int copies_memory(struct kern_ctx *k, struct backend_memory *ret)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    return r < 0 ? r : CU(c, cudaMemGetInfo(&ret->free_bytes, &ret->total_bytes));
}
