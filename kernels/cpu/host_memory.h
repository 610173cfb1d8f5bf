/* Memory that this process may use. */
#pragma once
#include "kernels/backend.h"

/* The machine's total and available memory, lowered to the limit of the process's own cgroup where that is less. ERR_IO without /proc. */
int host_memory(struct backend_memory *ret);
