/* See fault.h: CUDA's runtime with the linker's wraps. */
#include "tests/engine/fault.h"
#include "tests/kernels/failing_cuda.h"
#include <cuda_runtime_api.h>
#include <stddef.h>

const struct backend *fault_backend(void)
{
    return NULL;
}

int fault_devices(void)
{
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

void fault_at(int device, int n)
{
    failing_cuda_device_at(device, n);
}
