/* The CUDA backend of a build without CUDA. */
#include "kernels/cuda/backend_cuda.h"

static int present(struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED, "this build has no CUDA backend (meson option cuda)");
}

static int open_cuda(const struct backend_config *c, struct kern_ctx **ret, struct err *err)
{
    return present(err);
}

const struct backend *backend_cuda(void)
{
    static const struct backend stub = {.name = "cuda", .present = present, .open = open_cuda};
    return &stub;
}
