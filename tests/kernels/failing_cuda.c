/* See failing_cuda.h. Calls that only clean up after an error, and those whose result nobody reads, are left alone. */
#include "tests/kernels/failing_cuda.h"
#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_int fail_at, fail_device = -1, n_calls;
static int pretended;

void failing_cuda_device_at(int device, int n)
{
    fail_at = 0;
    fail_device = device;
    n_calls = 0;
    fail_at = n;
}

void failing_cuda_at(int n)
{
    failing_cuda_device_at(-1, n);
}

int failing_cuda_calls(void)
{
    return n_calls;
}

void failing_cuda_capability(int capability)
{
    pretended = capability;
}

static bool fails_on(int device)
{
    if (fail_device >= 0 && device != fail_device)
        return false;
    int n = ++n_calls, at = fail_at;
    return at && n >= at;
}

/* On the thread's device. */
static bool fails(void)
{
    int device = 0;
    if (fail_device >= 0 && cudaGetDevice(&device) != cudaSuccess)
        return false;
    return fails_on(device);
}

#define DECLARE(name, ...)                  \
    cudaError_t __real_##name(__VA_ARGS__); \
    cudaError_t __wrap_##name(__VA_ARGS__); \
    cudaError_t __wrap_##name(__VA_ARGS__)

/* Not made where it fails; of those that free, made all the same. */
#define CALL(name, args, ...)                                   \
    DECLARE(name, __VA_ARGS__)                                  \
    {                                                           \
        return fails() ? cudaErrorUnknown : __real_##name args; \
    }
#define FREE(name, args, ...)                  \
    DECLARE(name, __VA_ARGS__)                 \
    {                                          \
        cudaError_t e = __real_##name args;    \
        return fails() ? cudaErrorUnknown : e; \
    }

DECLARE(cudaSetDevice, int device)
{
    return fails_on(device) ? cudaErrorUnknown : __real_cudaSetDevice(device);
}

CALL(cudaMalloc, (p, bytes), void **p, size_t bytes)
CALL(cudaMallocHost, (p, bytes), void **p, size_t bytes)
FREE(cudaFree, (p), void *p)
FREE(cudaFreeHost, (p), void *p)
CALL(cudaMemGetInfo, (unused, total), size_t *unused, size_t *total)
CALL(cudaMemsetAsync, (p, value, bytes, stream), void *p, int value, size_t bytes, cudaStream_t stream)
CALL(cudaMemcpyAsync, (dst, src, bytes, kind, stream), void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
     cudaStream_t stream)
CALL(cudaMemcpyPeerAsync, (dst, to, src, from, bytes, stream), void *dst, int to, const void *src, int from, size_t bytes,
     cudaStream_t stream)
CALL(cudaMemcpy2DAsync, (dst, dst_ld, src, src_ld, bytes, rows, kind, stream), void *dst, size_t dst_ld, const void *src, size_t src_ld,
     size_t bytes, size_t rows, enum cudaMemcpyKind kind, cudaStream_t stream)
CALL(cudaStreamWaitEvent, (stream, event, flags), cudaStream_t stream, cudaEvent_t event, unsigned flags)
CALL(cudaStreamCreateWithFlags, (stream, flags), cudaStream_t *stream, unsigned flags)
CALL(cudaStreamSynchronize, (stream), cudaStream_t stream)
CALL(cudaStreamBeginCapture, (stream, mode), cudaStream_t stream, enum cudaStreamCaptureMode mode)
FREE(cudaStreamEndCapture, (stream, graph), cudaStream_t stream, cudaGraph_t *graph)
CALL(cudaGraphInstantiate, (exec, graph, flags), cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
CALL(cudaGraphLaunch, (exec, stream), cudaGraphExec_t exec, cudaStream_t stream)
CALL(cudaEventCreate, (event), cudaEvent_t *event)
CALL(cudaEventCreateWithFlags, (event, flags), cudaEvent_t *event, unsigned flags)
CALL(cudaEventRecord, (event, stream), cudaEvent_t event, cudaStream_t stream)
CALL(cudaEventSynchronize, (event), cudaEvent_t event)
CALL(cudaFuncSetAttribute, (kernel, attribute, value), const void *kernel, enum cudaFuncAttribute attribute, int value)
CALL(cudaGetDriverEntryPointByVersion, (symbol, fn, version, flags, status), const char *symbol, void **fn, unsigned version,
     unsigned long long flags, enum cudaDriverEntryPointQueryResult *status)
FREE(cudaGetLastError, (), void) /* follows each launch */

DECLARE(cudaDeviceGetAttribute, int *value, enum cudaDeviceAttr attribute, int device)
{
    if (fails())
        return cudaErrorUnknown;
    cudaError_t e = __real_cudaDeviceGetAttribute(value, attribute, device);
    if (pretended && attribute == cudaDevAttrComputeCapabilityMajor)
        *value = pretended / 10;
    if (pretended && attribute == cudaDevAttrComputeCapabilityMinor)
        *value = pretended % 10;
    return e;
}
