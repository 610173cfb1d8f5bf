/* The CPU entry of the backend list. */
#pragma once
#include "kernels/backend.h"

const struct backend *backend_cpu(void);
