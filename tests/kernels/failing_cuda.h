/* Makes calls of the CUDA runtime fail, or say what they would not: the linker puts these between kernels/cuda and the runtime, whichever that is
 * (meson.build: cuda_wraps). */
#pragma once

/* The n-th call from now on fails (n >= 1), and every one after it; 0 ends that. What frees something does so all the same. */
void failing_cuda_at(int n);
/* The same where only calls count and fail that are made while this device is the thread's own, or that make it so. */
void failing_cuda_device_at(int device, int n);
/* Calls since the last failing_cuda_at(). */
int failing_cuda_calls(void);
/* Devices are of this compute capability, ten times (75: 7.5); 0: of their own. */
void failing_cuda_capability(int capability);
