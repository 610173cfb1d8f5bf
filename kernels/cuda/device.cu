/* Which CUDA devices can be used, and what one is capable of. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sm90.cuh"
#include <stdlib.h>

/* Which code the driver chose for this device: the kernels of level wgmma exist in that built for sm_90a alone. PTX that it compiles itself for a
 * Hopper device says 9.0 too, and lacks them. */
__global__ static void probe(enum cuda_level *ret)
{
    *ret = HAVE_SM90 ? CUDA_WGMMA : CUDA_MMA;
}

enum { OLDEST = 80 }; /* compute capability, ten times */

int device_capability(int device)
{
    int major = 0, minor = 0;
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
    int capability = device_capability(device);
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

/* No device was counted: why. */
static int no_device(cudaError_t e, struct err *err)
{
    int driver = 0, runtime = 0;
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

int device_find(int index, struct err *err)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n < 1)
        return no_device(e, err);
    if (index < 0 || index >= n)
        return err_field(err, ERR_INVALID, "device", "there is no CUDA device %d: %d %s found, numbered from 0", index, n,
                         n == 1 ? "was" : "were");
    return check_device(index, err);
}

int device_level(struct cuda_ctx *c, enum cuda_level *ret)
{
    probe<<<1, 1, 0, c->stream>>>((enum cuda_level *)c->down);
    int r = launched(&c->k, "probe");
    if (r >= 0)
        r = CU(c, cudaStreamSynchronize(c->stream));
    *ret = *(enum cuda_level *)c->down;
    return r;
}
