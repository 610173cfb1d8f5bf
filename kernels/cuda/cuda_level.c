/* See cuda_level.h. */
#include "kernels/cuda/cuda_level.h"
#include "kernels/level.h"

static const char *const names[CUDA_LEVEL_COUNT] = {"simt", "mma", "wgmma"};

const char *cuda_level_name(enum cuda_level l)
{
    return names[l];
}

int cuda_level_parse(const char *name, enum cuda_level have, enum cuda_level *ret, struct err *err)
{
    int l, r = level_parse("cuda_level", "device", names, CUDA_LEVEL_COUNT, have, name, &l, err);
    if (r >= 0)
        *ret = l;
    return r;
}
