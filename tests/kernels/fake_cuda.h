/* A CUDA runtime without devices, to be linked in place of the real one: it keeps memory on the host and runs no kernel but the probe of
 * kernels/cuda/device.cu, so results are zeros or what was copied. What it does do is to refuse what a real runtime of several devices refuses, and a
 * little more: a stream, an event, an array or a launch of another device than the calling thread's, and more shared memory than was
 * asked for on that device. */
#pragma once

/* Devices that there are, of compute capability 9.0; 2 at first. */
void fake_cuda_devices(int n);
/* Calls refused since the program began; each was also printed. */
int fake_cuda_refused(void);
/* Launches on a device so far. */
int fake_cuda_launches(int device);
