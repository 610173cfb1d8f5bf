/* The CUDA backend: its table, and the life of a context. One context is one device and one stream, beside which a second one
 * takes a part of recorded steps (replay.cu); a process may have several. */
#include "kernels/cuda/copies.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/group.cuh"
#include "kernels/portable.h"
#include <stdio.h>
#include <stdlib.h>
extern "C" {
#include "common/thread.h"
}

enum { UP_PART_BYTES = 4 << 20, DOWN_BYTES = 8 << 20 };

int cuda_failed(struct cuda_ctx *c, cudaError_t e, const char *what)
{
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return err_set(NULL, ERR_NOMEM, "%s", what);
    }
    if (c->failed.code)
        return c->failed.code;
    err_set(&c->failed, ERR_DEVICE, "CUDA device %d failed: %s at %.200s", c->device, cudaGetErrorString(e), what);
    log_error(c->log, "%s", c->failed.text);
    return ERR_DEVICE;
}

void *cuda_scratch(struct cuda_ctx *c, enum scratch_use use, size_t bytes)
{
    void **p = &c->scratch[c->beside][use];
    size_t *have = &c->scratch_bytes[c->beside][use];
    if (*have >= bytes)
        return *p;
    size_t want = bytes + bytes / 4 + 256;
    if (CU(c, cudaStreamSynchronize(c->stream)) < 0)
        return NULL;
    cuda_drop_recordings(c);
    cudaFree(*p);
    *p = NULL;
    *have = 0;
    if (CU(c, cudaMalloc(p, want)) < 0)
        return NULL;
    *have = want;
    return *p;
}

int *cuda_counters(struct cuda_ctx *c, size_t n)
{
    const size_t *have = &c->scratch_bytes[c->beside][SCRATCH_COUNTERS], before = *have;
    int *p = (int *)cuda_scratch(c, SCRATCH_COUNTERS, n * sizeof(int));
    if (!p || *have == before)
        return p;
    return CU(c, cudaMemsetAsync(p, 0, *have, c->stream)) < 0 ? NULL : p;
}

int cuda_bind(struct cuda_ctx *c)
{
    int current;
    if (cudaGetDevice(&current) == cudaSuccess && current == c->device)
        return 0;
    return CU(c, cudaSetDevice(c->device));
}

int cuda_allow_shared(struct cuda_ctx *c, const void *kernel, int bytes)
{
    int i = 0;
    while (i < c->n_allowed && c->allowed[i].kernel != kernel)
        i++;
    if (i < c->n_allowed && c->allowed[i].bytes >= bytes)
        return 0;
    int r = CU(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    if (r < 0 || i == ALLOWED_MAX) /* a kernel beyond is allowed anew each time */
        return r;
    c->allowed[i].kernel = kernel;
    c->allowed[i].bytes = bytes;
    c->n_allowed += i == c->n_allowed;
    return 0;
}

static int present_cuda(struct err *err)
{
    return device_find(0, err);
}

static void wake_cuda(int device_index)
{
    device_find(device_index, NULL);
}

static enum dtype auto_dtype_cuda(enum dtype stored)
{
    return stored;
}

static int count_cuda(int *ret_numbers)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess)
        cudaGetLastError();
    *ret_numbers = n;
    return n;
}

static void close_cuda(struct kern_ctx *k)
{
    struct cuda_ctx *c = ctx_of(k);
    if (!c)
        return;
    cuda_bind(c);
    cuda_drop_recordings(c);
    for (auto &uses : c->scratch)
        for (void *p : uses)
            cudaFree(p);
    for (cudaEvent_t e : c->up.done)
        if (e)
            cudaEventDestroy(e);
    for (cudaEvent_t e : c->marks)
        if (e)
            cudaEventDestroy(e);
    for (cudaEvent_t e : c->stamps)
        if (e)
            cudaEventDestroy(e);
    thread_pool_free(c->pool);
    cudaFreeHost(c->up.base);
    cudaFreeHost(c->down);
    if (c->forks)
        cudaEventDestroy(c->forks);
    if (c->joins)
        cudaEventDestroy(c->joins);
    if (c->beside_stream)
        cudaStreamDestroy(c->beside_stream);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

static int open_buffers(struct cuda_ctx *c)
{
    c->up.part_bytes = UP_PART_BYTES;
    c->down_bytes = DOWN_BYTES;
    int r = CU(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
    if (r >= 0)
        r = CU(c, cudaStreamCreateWithFlags(&c->beside_stream, cudaStreamNonBlocking));
    if (r >= 0)
        r = CU(c, cudaEventCreateWithFlags(&c->forks, cudaEventDisableTiming));
    if (r >= 0)
        r = CU(c, cudaEventCreateWithFlags(&c->joins, cudaEventDisableTiming));
    if (r >= 0)
        r = CU(c, cudaMallocHost(&c->up.base, (size_t)UP_PART_BYTES * STAGE_PARTS));
    if (r >= 0)
        r = CU(c, cudaMallocHost(&c->down, c->down_bytes));
    for (int i = 0; r >= 0 && i < STAGE_PARTS; i++)
        r = CU(c, cudaEventCreateWithFlags(&c->up.done[i], cudaEventDisableTiming));
    for (int i = 0; r >= 0 && i < BACKEND_MARKS; i++)
        r = CU(c, cudaEventCreateWithFlags(&c->marks[i], cudaEventDisableTiming));
    return r;
}

static int open_device(struct cuda_ctx *c, const struct backend_config *cfg, struct err *err)
{
    enum cuda_level have;
    int r = CU(c, cudaDeviceGetAttribute(&c->n_sm, cudaDevAttrMultiProcessorCount, c->device));
    if (r >= 0)
        r = CU(c, cudaDeviceGetAttribute(&c->smem_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, c->device));
    if (r >= 0)
        r = open_buffers(c);
    if (r >= 0)
        r = device_level(c, &have);
    if (r < 0)
        return err_set(err, r, "%s", c->failed.code ? c->failed.text : "not enough memory to open the CUDA device");
    r = cuda_level_parse(cfg->cuda_level, have, &c->level, err);
    if (r < 0)
        return r;
    c->chains = have == CUDA_WGMMA; /* code for Hopper itself: what is built for older devices has no waits in it */
    c->k.limits = {.step_rows = 16384,
                   .few_rows = 64,
                   .gather_rows = 2048,
                   .steps_in_flight = 2,
                   .host_memory = false,
                   .levels = cuda_level_names,
                   .n_levels = CUDA_LEVEL_COUNT,
                   .level = c->level};
    int capability = device_capability(c->device);
    c->high = c->k.act == DTYPE_F32 && cfg->precision == MATMUL_HIGH && c->level > CUDA_SIMT;
    if (c->k.act == DTYPE_F32 && !c->high)
        snprintf(c->numerics, sizeof(c->numerics), "%s", PORTABLE_CLASS);
    else
        snprintf(c->numerics, sizeof(c->numerics), "cuda sm_%d %s%s %s", capability, dtype_name(c->k.act), c->high ? " high" : "",
                 cuda_level_names[c->level]);
    return 0;
}

static int open_cuda(const struct backend_config *cfg, struct kern_ctx **ret, struct err *err)
{
    int r = device_find(cfg->device_index, err);
    if (r < 0)
        return r;
    struct cuda_ctx *c = (struct cuda_ctx *)calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for the CUDA backend");
    entry_cuda_init(c);
    c->k.backend = backend_cuda();
    c->k.act = cfg->dtype;
    c->k.impl = c;
    c->log = cfg->log;
    c->device = cfg->device_index;
    c->n_threads = cfg->n_threads;
    r = open_device(c, cfg, err);
    if (r < 0) {
        close_cuda(&c->k);
        return r;
    }
    *ret = &c->k;
    return 0;
}

static const char *numerics_class_cuda(struct kern_ctx *k)
{
    return ctx_of(k)->numerics;
}

extern "C" const struct backend *backend_cuda(void)
{
    static const struct backend b = {
        .name = "cuda",
        .present = present_cuda,
        .count = count_cuda,
        .auto_dtype = auto_dtype_cuda,
        .wake = wake_cuda,
        .open = open_cuda,
        .close = close_cuda,
        .alloc = copies_alloc,
        .free = copies_free,
        .upload = copies_upload,
        .download = copies_download,
        .copy = copies_peer,
        .sync = copies_sync,
        .group_open = group_open_cuda,
        .group_fail = group_fail_cuda,
        .group_close = group_close_cuda,
        .all_gather = all_gather_cuda,
        .await_gathers = await_gathers_cuda,
        .take_columns = take_columns_cuda,
        .alloc_host = copies_alloc_host,
        .free_host = copies_free_host,
        .fetch = copies_fetch,
        .mark = copies_mark,
        .wait = copies_wait,
        .stamp = copies_stamp,
        .stamp_seconds = copies_stamp_seconds,
        .memory = copies_memory,
        .numerics_class = numerics_class_cuda,
    };
    return &b;
}
