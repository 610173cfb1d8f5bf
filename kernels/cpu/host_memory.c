#include "kernels/cpu/host_memory.h"
#include "common/memory.h"

int host_memory(struct backend_memory *ret)
{
    struct memory m;
    int r = memory_read(&m);
    if (r >= 0)
        *ret = (struct backend_memory){m.total_bytes, m.free_bytes};
    return r;
}
