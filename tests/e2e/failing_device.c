/* The whole program on the CPU backend of tests/engine/late_backend.c. DTRNET_TEST_FAIL=DEVICE:N has the N-th call on a device fail, counted from when the
 * model is loaded, and all after it; DEVICE -1: on any. */
#include "engine/engine_private.h"
#include "tests/engine/late_backend.h"
#include <stdio.h>
#include <stdlib.h>

int __wrap_engine_open(const struct engine_options *o, struct engine **ret, struct err *err);

int __wrap_engine_open(const struct engine_options *o, struct engine **ret, struct err *err)
{
    const char *plan = getenv("DTRNET_TEST_FAIL");
    int device, n, r = engine_open_on(o, late_backend(), ret, err);
    if (r >= 0 && plan && sscanf(plan, "%d:%d", &device, &n) == 2)
        late_fail_device_at(device, n);
    return r;
}
