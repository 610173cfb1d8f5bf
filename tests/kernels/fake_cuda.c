/* See fake_cuda.h. One lock around everything; objects are never reused, so a wrong one is noticed. */
#include "tests/kernels/fake_cuda.h"
#include "kernels/cuda/cuda_level.h"
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVICES = 8, MAX_ALLOCATIONS = 4096, MAX_KERNELS = 512, SHARED_UNASKED = 48 << 10 };

struct object { /* a stream or an event */
    int device;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int n_devices = 2, n_refused, n_launches[MAX_DEVICES];
static struct {
    char *p;
    size_t bytes;
    int device;
} allocations[MAX_ALLOCATIONS];
static struct kernel {
    const void *host;
    bool probe;
    int shared[MAX_DEVICES]; /* asked for */
} kernels[MAX_KERNELS];
static int n_kernels;
static _Thread_local int current;
static _Thread_local cudaError_t last;
static _Thread_local struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} pushed;

void fake_cuda_devices(int n)
{
    n_devices = n;
}

int fake_cuda_refused(void)
{
    return n_refused;
}

int fake_cuda_launches(int device)
{
    return n_launches[device];
}

static cudaError_t refuse(const char *what, const char *why)
{
    pthread_mutex_lock(&lock);
    n_refused++;
    pthread_mutex_unlock(&lock);
    fprintf(stderr, "fake runtime: %s: %s\n", what, why);
    return last = cudaErrorInvalidResourceHandle;
}

static cudaError_t check_object(const void *object, const char *what)
{
    return ((const struct object *)object)->device == current ? cudaSuccess : refuse(what, "another device's stream or event");
}

/* ---- devices ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = n_devices;
    return n_devices ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= n_devices)
        return refuse("cudaSetDevice", "no such device");
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    memset(p, 0, sizeof(*p));
    snprintf(p->name, sizeof(p->name), "fake %d", device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    *value = attribute == cudaDevAttrComputeCapabilityMajor             ? 9
             : attribute == cudaDevAttrComputeCapabilityMinor           ? 0
             : attribute == cudaDevAttrMultiProcessorCount              ? 4
             : attribute == cudaDevAttrMaxSharedMemoryPerMultiprocessor ? 228 << 10
                                                                        : 0;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last;
    last = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorInvalidResourceHandle ? "invalid resource handle" : "an error";
}

static CUresult encode(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *p, const cuuint64_t *dims,
                       const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *steps, CUtensorMapInterleave interleave,
                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **fn, unsigned version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *status)
{
    *fn = (void *)encode;
    *status = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*p)
        return cudaErrorMemoryAllocation;
    memset(*p, 0, bytes);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCATIONS; i++)
        if (!allocations[i].p) {
            allocations[i].p = *p;
            allocations[i].bytes = bytes;
            allocations[i].device = current;
            break;
        }
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

/* The allocation that p lies in, or -1: memory of the host. */
static int find(const void *p)
{
    const char *at = p;
    int found = -1;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCATIONS && found < 0; i++)
        if (allocations[i].p && at >= allocations[i].p && at < allocations[i].p + allocations[i].bytes)
            found = i;
    pthread_mutex_unlock(&lock);
    return found;
}

static cudaError_t check_memory(const void *p, const char *what)
{
    int i = find(p);
    if (i < 0)
        return refuse(what, "not memory of a device");
    return allocations[i].device == current ? cudaSuccess : refuse(what, "another device's memory");
}

cudaError_t cudaFree(void *p)
{
    cudaError_t e = p ? check_memory(p, "cudaFree") : cudaSuccess;
    if (!p || e != cudaSuccess)
        return e;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < MAX_ALLOCATIONS; i++)
        if (allocations[i].p == p)
            allocations[i].p = NULL;
    pthread_mutex_unlock(&lock);
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    *p = calloc(1, bytes);
    return *p ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    return cudaMallocHost(p, bytes);
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *total)
{
    *unused = *total = (size_t)1 << 34;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream)
{
    cudaError_t e = check_memory(p, "cudaMemsetAsync");
    if (e == cudaSuccess)
        e = check_object(stream, "cudaMemsetAsync");
    if (e == cudaSuccess)
        memset(p, value, bytes);
    return e;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t e = check_memory(kind == cudaMemcpyHostToDevice ? dst : src, "cudaMemcpyAsync");
    if (e == cudaSuccess)
        e = check_object(stream, "cudaMemcpyAsync");
    if (e == cudaSuccess)
        memcpy(dst, src, bytes);
    return e;
}

static bool reaches[MAX_DEVICES][MAX_DEVICES];

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    *can = device != peer;
    return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    pthread_mutex_lock(&lock);
    bool twice = reaches[current][peer];
    reaches[current][peer] = true;
    pthread_mutex_unlock(&lock);
    return twice ? last = cudaErrorPeerAccessAlreadyEnabled : cudaSuccess;
}

cudaError_t cudaMemcpyPeerAsync(void *dst, int to, const void *src, int from, size_t bytes, cudaStream_t stream)
{
    int i = find(src);
    cudaError_t e = check_memory(dst, "cudaMemcpyPeerAsync");
    if (e == cudaSuccess)
        e = check_object(stream, "cudaMemcpyPeerAsync");
    if (e == cudaSuccess && (to != current || i < 0 || allocations[i].device != from))
        e = refuse("cudaMemcpyPeerAsync", "memory of another device than is said");
    if (e == cudaSuccess)
        memcpy(dst, src, bytes);
    return e;
}

/* Of the thread's device, or of one that this was told to reach. */
static cudaError_t check_reached(const void *p, const char *what)
{
    int i = find(p);
    pthread_mutex_lock(&lock);
    bool ok = i >= 0 && (allocations[i].device == current || reaches[current][allocations[i].device]);
    pthread_mutex_unlock(&lock);
    return ok ? cudaSuccess : refuse(what, "memory out of reach");
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_ld, const void *src, size_t src_ld, size_t bytes, size_t rows, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    cudaError_t e = check_reached(dst, "cudaMemcpy2DAsync");
    if (e == cudaSuccess)
        e = check_memory(src, "cudaMemcpy2DAsync");
    if (e == cudaSuccess)
        e = check_object(stream, "cudaMemcpy2DAsync");
    for (size_t i = 0; e == cudaSuccess && i < rows; i++)
        memcpy((char *)dst + i * dst_ld, (const char *)src + i * src_ld, bytes);
    return e;
}

/* ---- streams, events, graphs ------------------------------------------------------------------------------------- */

static void *new_object(void)
{
    struct object *o = malloc(sizeof(*o));
    o->device = current;
    return o;
}

/* From any device. */
static cudaError_t drop_object(void *object)
{
    free(object);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    *stream = new_object();
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return drop_object(stream);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) /* from any device */
{
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    *event = new_object();
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    return drop_object(event);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    cudaError_t e = check_object(event, "cudaEventRecord");
    return e == cudaSuccess ? check_object(stream, "cudaEventRecord") : e;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    return check_object(stream, "cudaStreamWaitEvent"); /* the event may be of another device */
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    return check_object(event, "cudaEventSynchronize");
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    *ms = 1;
    return check_object(from, "cudaEventElapsedTime");
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    return check_object(stream, "cudaStreamBeginCapture");
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = new_object();
    return check_object(stream, "cudaStreamEndCapture");
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    *exec = new_object();
    return check_object(graph, "cudaGraphInstantiate");
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return drop_object(graph);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return drop_object(exec);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t e = check_object(exec, "cudaGraphLaunch");
    return e == cudaSuccess ? check_object(stream, "cudaGraphLaunch") : e;
}

/* ---- kernels: what the compiler's host code calls ------------------------------------------------------------------ */

void **__cudaRegisterFatBinary(void *binary);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int threads, void *tid, void *bid, void *block,
                            void *grid, int *warp);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
cudaError_t __cudaGetKernel(cudaKernel_t *ret, const void *host);
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream);

void **__cudaRegisterFatBinary(void *binary)
{
    static void *handle;
    return &handle;
}

void __cudaRegisterFatBinaryEnd(void **handle) {}

void __cudaUnregisterFatBinary(void **handle) {}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int threads, void *tid, void *bid, void *block,
                            void *grid, int *warp)
{
    if (n_kernels == MAX_KERNELS)
        abort();
    kernels[n_kernels].host = host;
    kernels[n_kernels++].probe = strstr(name, "probe") != NULL;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream)
{
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *(cudaStream_t *)stream = pushed.stream;
    return cudaSuccess;
}

static struct kernel *kernel_of(const void *host)
{
    for (int i = 0; i < n_kernels; i++)
        if (kernels[i].host == host)
            return &kernels[i];
    abort();
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *host)
{
    return kernel_of(host) ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

cudaError_t cudaFuncSetAttribute(const void *host, enum cudaFuncAttribute attribute, int value)
{
    kernel_of(host)->shared[current] = value;
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream)
{
    const struct kernel *k = kernel_of(host);
    unsigned threads = block.x * block.y * block.z;
    cudaError_t e = check_object(stream, "launch");
    if (e != cudaSuccess)
        return e;
    if (!grid.x || !grid.y || !grid.z || !threads || threads > 1024)
        return refuse("launch", "no such grid");
    if (shared > SHARED_UNASKED && shared > (size_t)k->shared[current])
        return refuse("launch", "more shared memory than was asked for on this device");
    if (k->probe)
        **(enum cuda_level **)args[0] = CUDA_WGMMA;
    pthread_mutex_lock(&lock);
    n_launches[current]++;
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *ret, const void *host)
{
    *ret = (cudaKernel_t)host;
    return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream)
{
    return cudaLaunchKernel((const void *)kernel, grid, block, args, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *to, const void *host, void **args)
{
    return cudaLaunchKernel(host, to->gridDim, to->blockDim, args, to->dynamicSmemBytes, to->stream);
}
