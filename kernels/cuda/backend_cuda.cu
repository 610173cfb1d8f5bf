/* The CUDA device: opening it, its stream and memory, and copies through pinned buffers. One context, one device, one stream. */
#include "kernels/cuda/sm90.cuh"
#include "kernels/dev_ptr.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
extern "C" {
#include "kernels/cuda/inject.h"
}

enum { UP_PART_BYTES = 4 << 20, DOWN_BYTES = 8 << 20 };

static int inject_at, inject_calls;

extern "C" void cuda_inject_failure(int n)
{
    inject_at = n;
    inject_calls = 0;
}

extern "C" int cuda_injection_calls(void)
{
    return inject_calls;
}

bool cuda_injected(void)
{
    inject_calls++;
    return inject_at && inject_calls >= inject_at;
}

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
    if (c->scratch_bytes[use] >= bytes)
        return c->scratch[use];
    size_t want = bytes + bytes / 4 + 256;
    if (CU(c, cudaStreamSynchronize(c->stream)) < 0)
        return NULL;
    cuda_drop_recordings(c);
    cudaFree(c->scratch[use]);
    c->scratch[use] = NULL;
    c->scratch_bytes[use] = 0;
    if (CU(c, cudaMalloc(&c->scratch[use], want)) < 0)
        return NULL;
    c->scratch_bytes[use] = want;
    return c->scratch[use];
}

int *cuda_counters(struct cuda_ctx *c, size_t n)
{
    size_t before = c->scratch_bytes[SCRATCH_COUNTERS];
    int *p = (int *)cuda_scratch(c, SCRATCH_COUNTERS, n * sizeof(int));
    if (!p || c->scratch_bytes[SCRATCH_COUNTERS] == before)
        return p;
    return CU(c, cudaMemsetAsync(p, 0, c->scratch_bytes[SCRATCH_COUNTERS], c->stream)) < 0 ? NULL : p;
}

/* ---- the device ---- */

/* Which code the driver chose for this device: the kernels of level wgmma exist in that built for sm_90a alone. PTX that it compiles itself for a
 * Hopper device says 9.0 too, and lacks them. */
__global__ static void probe(enum cuda_level *ret)
{
    *ret = HAVE_SM90 ? CUDA_WGMMA : CUDA_MMA;
}

enum { OLDEST = 80 }; /* compute capability, ten times */

static int pretended_capability;

extern "C" void cuda_pretend_capability(int capability)
{
    pretended_capability = capability;
}

/* Ten times the device's compute capability; 0: it does not say. */
static int capability_of(int device)
{
    int major = 0, minor = 0;
    if (pretended_capability)
        return pretended_capability;
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        cudaGetLastError();
    return 10 * major + minor;
}

/* What is wrong with the device itself. */
static int check_device(int device, struct err *err)
{
    cudaDeviceProp p;
    cudaFuncAttributes a;
    int capability = capability_of(device);
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e == cudaSuccess && capability < OLDEST)
        return err_set(err, ERR_DEVICE, "CUDA device %d (%s) has compute capability %d.%d, and %d.%d is the oldest that works", device,
                       p.name, capability / 10, capability % 10, OLDEST / 10, OLDEST % 10);
    if (e == cudaSuccess)
        e = cudaSetDevice(device);
    if (e == cudaSuccess)
        e = cudaFuncGetAttributes(&a, probe);
    if (e == cudaSuccess)
        return 0;
    cudaGetLastError();
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion)
        return err_set(err, ERR_DEVICE,
                       "this build has no code for CUDA device %d (%s, compute capability %d.%d): build with -Dnvcc_arch=release", device,
                       p.name, capability / 10, capability % 10);
    return err_set(err, ERR_DEVICE, "CUDA device %d cannot be used: %s", device, cudaGetErrorString(e));
}

static int present_cuda(struct err *err)
{
    int n = 0, driver = 0, runtime = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0)
        return check_device(0, err);
    cudaGetLastError();
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver && !driver)
        return err_set(err, ERR_DEVICE, "no NVIDIA driver was found");
    if (e == cudaErrorInsufficientDriver)
        return err_set(err, ERR_DEVICE, "the NVIDIA driver is for CUDA %d.%d, and this build needs %d.%d or later", driver / 1000,
                       driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e != cudaSuccess && e != cudaErrorNoDevice)
        return err_set(err, ERR_DEVICE, "the CUDA devices cannot be counted: %s", cudaGetErrorString(e));
    return err_set(err, ERR_DEVICE, "no CUDA device was found%s",
                   getenv("CUDA_VISIBLE_DEVICES") ? " (CUDA_VISIBLE_DEVICES may hide them)" : "");
}

static enum dtype auto_dtype_cuda(enum dtype stored)
{
    return stored;
}

static void close_cuda(struct kern_ctx *k)
{
    struct cuda_ctx *c = ctx_of(k);
    if (!c)
        return;
    cuda_drop_recordings(c);
    for (void *p : c->scratch)
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
    cudaFreeHost(c->up.base);
    cudaFreeHost(c->down);
    if (c->stream)
        cudaStreamDestroy(c->stream);
    free(c);
}

static const struct kern_ops *ops_cuda(void)
{
    static struct kern_ops o;
    if (!o.embed) {
        matrix_cuda_init(&o);
        matmul_cuda_init(&o);
        route_cuda_init(&o);
        mamba_cuda_init(&o);
        select_cuda_init(&o);
        heads_cuda_init(&o);
        place_cuda_init(&o);
        rope_cuda_init(&o);
        attention_cuda_init(&o);
        logprobs_cuda_init(&o);
        replay_cuda_init(&o);
        gates_cuda_init(&o);
        rmsnorm_cuda_init(&o);
    }
    return &o;
}

static int open_buffers(struct cuda_ctx *c)
{
    c->up.part_bytes = UP_PART_BYTES;
    c->down_bytes = DOWN_BYTES;
    int r = CU(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
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

/* The highest level of the device with this build, by a first launch. */
static int find_level(struct cuda_ctx *c, enum cuda_level *ret)
{
    probe<<<1, 1, 0, c->stream>>>((enum cuda_level *)c->down);
    int r = launched(&c->k, "probe");
    if (r >= 0)
        r = CU(c, cudaStreamSynchronize(c->stream));
    *ret = *(enum cuda_level *)c->down;
    return r;
}

static int open_device(struct cuda_ctx *c, const char *level, struct err *err)
{
    enum cuda_level have;
    int r = CU(c, cudaSetDevice(c->device));
    if (r >= 0)
        r = CU(c, cudaDeviceGetAttribute(&c->n_sm, cudaDevAttrMultiProcessorCount, c->device));
    if (r >= 0)
        r = CU(c, cudaDeviceGetAttribute(&c->smem_bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, c->device));
    if (r >= 0)
        r = open_buffers(c);
    if (r >= 0)
        r = find_level(c, &have);
    if (r < 0)
        return err_set(err, r, "%s", c->failed.code ? c->failed.text : "not enough memory to open the CUDA device");
    r = cuda_level_parse(level, have, &c->level, err);
    if (r < 0)
        return r;
    c->k.limits = {.step_rows = 16384,
                   .steps_in_flight = 2,
                   .host_memory = false,
                   .levels = cuda_level_names,
                   .n_levels = CUDA_LEVEL_COUNT,
                   .level = c->level};
    int capability = capability_of(c->device);
    snprintf(c->numerics, sizeof(c->numerics), "cuda sm_%d %s %s", capability, dtype_name(c->k.act),
             c->k.act == DTYPE_F32 ? "fma" : cuda_level_names[c->level]);
    return 0;
}

static int open_cuda(const struct backend_config *cfg, struct kern_ctx **ret, struct err *err)
{
    struct cuda_ctx *c = (struct cuda_ctx *)calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for the CUDA backend");
    c->k.ops = ops_cuda();
    c->k.backend = backend_cuda();
    c->k.act = cfg->dtype;
    c->k.impl = c;
    c->log = cfg->log;
    int r = open_device(c, cfg->cuda_level, err);
    if (r < 0) {
        close_cuda(&c->k);
        return r;
    }
    *ret = &c->k;
    return 0;
}

/* ---- memory and copies ---- */

static struct dev_bytes *alloc_cuda(struct kern_ctx *k, size_t bytes)
{
    void *p = NULL;
    return CU(ctx_of(k), cudaMalloc(&p, bytes ? bytes : 1)) < 0 ? NULL : (struct dev_bytes *)p;
}

static void free_cuda(struct kern_ctx *k, struct dev_bytes *p)
{
    if (p)
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

static int upload_cuda(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    struct stage_ring *u = &c->up;
    int r = c->failed.code;
    for (size_t done = 0; r >= 0 && done < bytes;) {
        if (u->used == u->part_bytes && (r = next_part(c)) < 0)
            break;
        size_t n = bytes - done < u->part_bytes - u->used ? bytes - done : u->part_bytes - u->used;
        char *stage = u->base + u->part * u->part_bytes + u->used;
        memcpy(stage, (const char *)src + done, n);
        r = CU(c, cudaMemcpyAsync((char *)bytes_of(dst) + done, stage, n, cudaMemcpyHostToDevice, c->stream));
        size_t taken = (n + 63) & ~(size_t)63;
        u->used = taken < u->part_bytes - u->used ? u->used + taken : u->part_bytes;
        done += n;
    }
    return r;
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

static int download_cuda(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = c->failed.code;
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

static int sync_cuda(struct kern_ctx *k, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = finish_downloads(c);
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : 0;
}

static void *alloc_host_cuda(struct kern_ctx *k, size_t bytes)
{
    void *p = NULL;
    return CU(ctx_of(k), cudaMallocHost(&p, bytes ? bytes : 1)) < 0 ? NULL : p;
}

static void free_host_cuda(struct kern_ctx *k, void *p)
{
    if (p)
        CU(ctx_of(k), cudaFreeHost(p));
}

static int fetch_cuda(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    struct cuda_ctx *c = ctx_of(k);
    return c->failed.code || !bytes ? c->failed.code : CU(c, cudaMemcpyAsync(dst, bytes_of(src), bytes, cudaMemcpyDeviceToHost, c->stream));
}

static int mark_cuda(struct kern_ctx *k, int i)
{
    struct cuda_ctx *c = ctx_of(k);
    return CU(c, cudaEventRecord(c->marks[i], c->stream));
}

static int wait_cuda(struct kern_ctx *k, int i, struct err *err)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = CU(c, cudaEventSynchronize(c->marks[i]));
    r = r < 0 ? r : c->failed.code;
    return r < 0 ? err_set(err, r, "%s", c->failed.text) : 0;
}

static int stamp_cuda(struct kern_ctx *k, int i)
{
    struct cuda_ctx *c = ctx_of(k);
    int r = c->stamps[i] ? 0 : CU(c, cudaEventCreate(&c->stamps[i]));
    return r < 0 ? r : CU(c, cudaEventRecord(c->stamps[i], c->stream));
}

static double stamp_seconds_cuda(struct kern_ctx *k, int a, int b)
{
    float ms;
    if (cudaEventElapsedTime(&ms, ctx_of(k)->stamps[a], ctx_of(k)->stamps[b]) == cudaSuccess)
        return 1e-3 * ms;
    cudaGetLastError(); /* not yet; a device that failed says so in other calls */
    return -1;
}

static int memory_cuda(struct kern_ctx *k, struct backend_memory *ret)
{
    return CU(ctx_of(k), cudaMemGetInfo(&ret->free_bytes, &ret->total_bytes));
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
        .auto_dtype = auto_dtype_cuda,
        .open = open_cuda,
        .close = close_cuda,
        .alloc = alloc_cuda,
        .free = free_cuda,
        .upload = upload_cuda,
        .download = download_cuda,
        .sync = sync_cuda,
        .alloc_host = alloc_host_cuda,
        .free_host = free_host_cuda,
        .fetch = fetch_cuda,
        .mark = mark_cuda,
        .wait = wait_cuda,
        .stamp = stamp_cuda,
        .stamp_seconds = stamp_seconds_cuda,
        .memory = memory_cuda,
        .numerics_class = numerics_class_cuda,
    };
    return &b;
}
