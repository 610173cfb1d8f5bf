/* See cuda_level.h. */
#include "kernels/cuda/cuda_level.h"
#include "kernels/level.h"

const char *const cuda_level_names[CUDA_LEVEL_COUNT] = {"simt", "mma", "wgmma"};

int cuda_level_parse(const char *name, enum cuda_level have, enum cuda_level *ret, struct err *err)
{
    int l, r = level_parse("cuda_level", "device", cuda_level_names, CUDA_LEVEL_COUNT, have, name, &l, err);
    if (r >= 0)
        *ret = l;
    return r;
}
