/* What a CUDA device can run of this build's kernels, as one ordered level. A level includes those below it. */
#pragma once
#include "common/err.h"

enum cuda_level {
    CUDA_SIMT,  /* plain arithmetic, any type */
    CUDA_MMA,   /* and warp matrix products: compute capability 8.0 */
    CUDA_WGMMA, /* and Hopper's: warpgroup matrix products, the copy engine, clusters */
    CUDA_LEVEL_COUNT
};

extern const char *const cuda_level_names[CUDA_LEVEL_COUNT]; /* "simt", "mma", "wgmma" */
/* NULL: `have`. ERR_INVALID for an unknown name, ERR_UNSUPPORTED for a level above `have`. */
int cuda_level_parse(const char *name, enum cuda_level have, enum cuda_level *ret, struct err *err);
