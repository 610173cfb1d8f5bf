/* See cuda_level.h. */
#include "kernels/cuda/cuda_level.h"
#include <string.h>

static const char *const names[CUDA_LEVEL_COUNT] = {"simt", "mma", "wgmma"};

const char *cuda_level_name(enum cuda_level l) { return names[l]; }

int cuda_level_parse(const char *name, enum cuda_level have, enum cuda_level *ret, struct err *err)
{
    if (!name) {
        *ret = have;
        return 0;
    }
    for (int l = 0; l < CUDA_LEVEL_COUNT; l++) {
        if (strcmp(name, names[l]))
            continue;
        if (l > (int)have)
            return err_field(err, ERR_UNSUPPORTED, "cuda_level", "this device's highest level is %s, not %s", names[have], name);
        *ret = l;
        return 0;
    }
    return err_field(err, ERR_INVALID, "cuda_level", "cuda_level must be simt, mma or wgmma, not \"%.32s\"", name);
}
