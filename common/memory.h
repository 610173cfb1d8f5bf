/* Memory of the machine that this process may use. */
#pragma once
#include <stddef.h>

struct memory {
    size_t total_bytes, free_bytes; /* lowered to the limit of the process's own cgroup where that is less */
};

/* 0, or ERR_IO without /proc. */
int memory_read(struct memory *ret);
