/* Ranks are devices of one process, each with a communicator. What NCCL gathers lies rank by rank; a kernel puts the columns of each row side by side. */
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/group.cuh"
extern "C" {
#include "kernels/cuda/nccl.h"
}
#include <pthread.h>
#include <stdlib.h>

struct cuda_group {
    const struct nccl *nccl;
    int n;
    pthread_mutex_t lock; /* of failed */
    bool failed;
    struct nccl_comm *comms[1]; /* [n] */
};

int group_open_cuda(struct kern_ctx *const *ranks, int n, struct err *err)
{
    const struct nccl *nccl = NULL;
    int devices[64], r = n <= 64 ? nccl_load(&nccl, err) : err_set(err, ERR_UNSUPPORTED, "a group has at most 64 devices");
    if (r < 0)
        return r;
    struct cuda_group *g = (struct cuda_group *)calloc(1, sizeof(*g) + n * sizeof(g->comms[0]));
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
    for (int i = 0; i < n; i++) {
        ctx_of(ranks[i])->group = g;
        ctx_of(ranks[i])->rank = i;
    }
    return 0;
}

static bool has_failed(struct cuda_group *g)
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
    pthread_mutex_unlock(&g->lock);
    for (int i = 0; first && i < g->n; i++)
        g->nccl->abort(g->comms[i]);
}

void group_close_cuda(struct kern_ctx *const *ranks, int n)
{
    struct cuda_group *g = n ? ctx_of(ranks[0])->group : NULL;
    if (!g)
        return;
    for (int i = 0; i < n; i++) {
        struct cuda_ctx *c = ctx_of(ranks[i]);
        cuda_bind(c);
        cudaStreamSynchronize(c->stream);
        if (!g->failed) /* else abort has freed it */
            g->nccl->destroy(g->comms[i]);
        c->group = NULL;
    }
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

int all_gather_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows)
{
    struct cuda_ctx *c = ctx_of(k);
    struct cuda_group *g = c->group;
    int r = cuda_enter(c);
    if (r < 0 || !rows)
        return r;
    void *gathered = cuda_scratch(c, SCRATCH_COLLECTIVE, bytes * rows * g->n);
    if (!gathered)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    if (has_failed(g))
        return cuda_failed(c, cudaErrorUnknown, "a collective: another device of the group has failed");
    int result = g->nccl->all_gather(bytes_of(src), gathered, bytes * rows, NCCL_BYTES, g->comms[c->rank], c->stream);
    if (result)
        return cuda_failed(c, cudaErrorUnknown, g->nccl->error_string(result));
    if (bytes % 16 == 0)
        spread<uint4>(c, bytes_of(dst), gathered, bytes, rows, g->n);
    else if (bytes % 4 == 0)
        spread<unsigned>(c, bytes_of(dst), gathered, bytes, rows, g->n);
    else
        spread<unsigned char>(c, bytes_of(dst), gathered, bytes, rows, g->n);
    return launched(k, "put_side_by_side");
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
