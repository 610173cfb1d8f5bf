/* The CUDA entry of the backend list. In a build without CUDA, stubs.c supplies it: never present, and open() says why. */
#pragma once
#include "kernels/backend.h"

const struct backend *backend_cuda(void);
