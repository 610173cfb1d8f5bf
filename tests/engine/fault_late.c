/* See fault.h: the CPU backend as late devices. */
#include "kernels/backend.h"
#include "tests/engine/fault.h"
#include "tests/engine/late_backend.h"

const struct backend *fault_backend(void)
{
    return late_backend();
}

int fault_devices(void)
{
    return BACKEND_CPU_DEVICES;
}

void fault_at(int device, int n)
{
    late_fail_device_at(device, n);
}
