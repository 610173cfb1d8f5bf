/* Where devices of an engine fail: the CPU as late devices (fault_late.c), or CUDA's runtime (fault_cuda.c). */
#pragma once

struct backend;

/* For engine_open_on; NULL: the engine opens the device named "cuda". */
const struct backend *fault_backend(void);
/* Devices that there are. */
int fault_devices(void);
/* The n-th call on this device from now on fails (n >= 1), and every one after it; n 0 ends that. */
void fault_at(int device, int n);
