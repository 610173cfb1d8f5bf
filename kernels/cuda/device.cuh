/* Which CUDA devices can be used, and what one is capable of. */
#pragma once
#include "kernels/cuda/cuda_ctx.cuh"

/* Can device `index` be opened? ERR_DEVICE says why not; ERR_INVALID: there is no such device, and how many there are. It becomes the
 * calling thread's device. */
int device_find(int index, struct err *err);
/* Ten times the compute capability (90: 9.0); 0: the device does not say. */
int device_capability(int device);
/* The highest level of the device with this build, by a first launch on c->stream; uses c->down. */
int device_level(struct cuda_ctx *c, enum cuda_level *ret);
