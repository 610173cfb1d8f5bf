/* For tests: makes CUDA calls of this process fail. */
#pragma once

/* The n-th CUDA call or kernel launch from now on fails (n >= 1), and every one after it; 0 ends that. */
void cuda_inject_failure(int n);
/* Calls counted since the last cuda_inject_failure(). */
int cuda_injection_calls(void);
/* Devices are taken for ones of this compute capability, ten times (75: 7.5); 0: what they say. */
void cuda_pretend_capability(int capability);
