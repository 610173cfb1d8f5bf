/* The list of backends, and the choice of one by name. */
#include "kernels/backend.h"
#include "kernels/cpu/backend_cpu.h"
#include "kernels/cuda/backend_cuda.h"

int backend_find(const char *name, const struct backend **ret, struct err *err)
{
    const struct backend *const all[] = {backend_cuda(), backend_cpu()};
    bool any = !strcmp(name, "auto");
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        const struct backend *b = all[i];
        if (!any && strcmp(name, b->name))
            continue;
        if (b->present()) {
            *ret = b;
            return 0;
        }
        if (any)
            continue;
        /* A backend that is built, yet not present, lacks its device; a stub refuses to open and has nothing else. */
        if (!b->alloc)
            return err_field(err, ERR_UNSUPPORTED, "device", "this build has no %s backend", name);
        return err_field(err, ERR_DEVICE, "device", "no %s device was found", name);
    }
    return err_field(err, ERR_INVALID, "device", "device must be auto, cpu or cuda, not \"%.64s\"", name);
}
