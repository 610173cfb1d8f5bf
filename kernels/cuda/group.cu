/* The life of a group, and gathers by NCCL: what it gathers lies rank by rank, and a kernel puts the columns of each row side by side. */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/group.cuh"
extern "C" {
#include "kernels/cuda/nccl.h"
}
#include <stdlib.h>

/* From so many bytes of a rank on, copy engines are faster than NCCL, which needs no word between hosts and whose start is shorter. */
enum { DIRECT_BYTES = 1 << 20 };

int group_open_cuda(struct kern_ctx *const *ranks, int n, struct err *err)
{
    const struct nccl *nccl = NULL;
    int devices[GROUP_RANKS_MAX_CUDA], r = nccl_load(&nccl, err);
    if (n > GROUP_RANKS_MAX_CUDA)
        r = err_set(err, ERR_UNSUPPORTED, "a group has at most %d devices", GROUP_RANKS_MAX_CUDA);
    if (r < 0)
        return r;
    struct cuda_group *g = (struct cuda_group *)calloc(1, sizeof(*g));
    if (!g)
        return err_set(err, ERR_NOMEM, "no memory for a group of %d devices", n);
    for (int i = 0; i < n; i++)
        devices[i] = ctx_of(ranks[i])->device;
    int result = nccl->init_all(g->comms, n, devices);
    if (result) {
        free(g);
        return err_set(err, ERR_DEVICE, "NCCL cannot connect the devices: %s", nccl->error_string(result));
    }
    g->nccl = nccl;
    g->n = n;
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->told, NULL);
    for (int i = 0; i < n; i++) {
        ctx_of(ranks[i])->group = g;
        ctx_of(ranks[i])->rank = i;
    }
    r = gather_direct_open(g, ranks);
    if (r < 0) {
        group_close_cuda(ranks, n);
        return err_set(err, r, "no streams for the gathers of %d devices", n);
    }
    return 0;
}

bool group_has_failed(struct cuda_group *g)
{
    pthread_mutex_lock(&g->lock);
    bool failed = g->failed;
    pthread_mutex_unlock(&g->lock);
    return failed;
}

/* Devices that wait for a rank which will not come are let go. */
void group_fail_cuda(struct kern_ctx *k)
{
    struct cuda_group *g = ctx_of(k)->group;
    pthread_mutex_lock(&g->lock);
    bool first = !g->failed;
    g->failed = true;
    pthread_cond_broadcast(&g->told);
    pthread_mutex_unlock(&g->lock);
    for (int i = 0; first && i < g->n; i++)
        g->nccl->abort(g->comms[i]);
}

void group_close_cuda(struct kern_ctx *const *ranks, int n)
{
    struct cuda_group *g = n ? ctx_of(ranks[0])->group : NULL;
    if (!g)
        return;
    gather_direct_close(g, ranks);
    for (int i = 0; i < n; i++) {
        struct cuda_ctx *c = ctx_of(ranks[i]);
        cuda_bind(c);
        cudaStreamSynchronize(c->stream);
        if (!g->failed) /* else abort has freed it */
            g->nccl->destroy(g->comms[i]);
        c->group = NULL;
    }
    pthread_cond_destroy(&g->told);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* dst[r, rank, :] = gathered[rank, r, :], `units` units a part. */
template <typename T> __global__ void put_side_by_side(T *dst, const T *gathered, int units, int rows, int ranks)
{
    size_t i = (size_t)blockIdx.x * 256 + threadIdx.x, row_units = (size_t)units * ranks;
    if (i >= row_units * rows)
        return;
    size_t row = i / row_units, rank = i % row_units / units, at = i % units;
    dst[i] = gathered[(rank * rows + row) * units + at];
}

template <typename T> static void spread(struct cuda_ctx *c, void *dst, const void *gathered, size_t bytes, int rows, int ranks)
{
    int units = (int)(bytes / sizeof(T));
    size_t all = (size_t)units * ranks * rows;
    put_side_by_side<<<(unsigned)((all + 255) / 256), 256, 0, c->stream>>>((T *)dst, (const T *)gathered, units, rows, ranks);
}

/* In order with the ops: it is done when they are. */
static int gather_by_nccl(struct cuda_ctx *c, void *dst, const void *src, size_t bytes, int rows)
{
    struct cuda_group *g = c->group;
    void *gathered = cuda_scratch(c, SCRATCH_COLLECTIVE, bytes * rows * g->n);
    if (!gathered)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    if (group_has_failed(g))
        return cuda_failed(c, cudaErrorUnknown, "a gather: another device of the group has failed");
    int result = g->nccl->all_gather(src, gathered, bytes * rows, NCCL_BYTES, g->comms[c->rank], c->stream);
    if (result)
        return cuda_failed(c, cudaErrorUnknown, g->nccl->error_string(result));
    if (bytes % 16 == 0)
        spread<uint4>(c, dst, gathered, bytes, rows, g->n);
    else if (bytes % 4 == 0)
        spread<unsigned>(c, dst, gathered, bytes, rows, g->n);
    else
        spread<unsigned char>(c, dst, gathered, bytes, rows, g->n);
    return launched(&c->k, "put_side_by_side");
}

int all_gather_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    if (r < 0 || !rows)
        return r;
    if (c->group->ranks[c->rank].stream && bytes * rows >= DIRECT_BYTES)
        return gather_direct(c, (char *)bytes_of(dst), (const char *)bytes_of(src), bytes, rows);
    r = gather_direct_await(c, 0);
    return r < 0 ? r : gather_by_nccl(c, bytes_of(dst), bytes_of(src), bytes, rows);
}

int await_gathers_cuda(struct kern_ctx *k, int but)
{
    int r = cuda_enter(ctx_of(k));
    return r < 0 ? r : gather_direct_await(ctx_of(k), but);
}

int take_columns_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                      int rows)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = cuda_enter(c);
    if (r < 0 || !rows)
        return r;
    const char *from = (const char *)bytes_of(src) + first;
    return CU(c, cudaMemcpy2DAsync(bytes_of(dst), bytes, from, ld, bytes, rows, cudaMemcpyDeviceToDevice, c->stream));
}
