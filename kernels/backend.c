/* The list of backends, and the choice of one by name. */
#include "kernels/backend.h"
#include "kernels/cpu/backend_cpu.h"
#include "kernels/cuda/backend_cuda.h"
#include <stdlib.h>
#include <string.h>

/* CUDA loads a kernel when it is first launched, which may wait until the device is idle, while that device waits in a collective for another one whose
 * kernels are loaded after it: so all are loaded at the start, unless the user says otherwise. */
void backend_expect_group(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

int backend_find(const char *name, const struct backend **ret, struct err *err)
{
    const struct backend *const all[] = {backend_cuda(), backend_cpu()};
    bool any = !strcmp(name, "auto");
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        const struct backend *b = all[i];
        if (!any && strcmp(name, b->name))
            continue;
        struct err why = {0};
        int r = b->present(&why);
        if (r >= 0) {
            *ret = b;
            return 0;
        }
        if (!any)
            return err_field(err, r, "device", "device %s: %s", name, why.text);
    }
    return err_field(err, ERR_INVALID, "device", "device must be auto, cpu or cuda, not \"%.64s\"", name);
}
