/* A device fails at each of its calls in turn. Of two replicas the other one answers, with the bits of a device alone; of two groups of two ranks the
 * other group; a group without another ends all its requests with an error, and nobody waits for ever. Needs two devices, two groups four.
 *
 *   test_faults MODEL_DIR [EVERY [FIRST [RANKS [DEVICE]]]]     only each so manieth call, from this one on; only 1 or 2 devices together (0: both);
 *                                                              only this device */
#include "tests/check.h"
#include "tests/engine/fault.h"
#include "tests/engine/five.h"
#include <stdlib.h>

enum { MAX_CALLS_CPU = 1000, MAX_CALLS_CUDA = 2500, UNREACHED = 20 };

static int every = 1, first = 1;

static struct engine *open_devices(const char *dir, const char *devices, int ranks)
{
    struct engine_options o = five_options(dir, "f32");
    o.device = fault_backend() ? NULL : "cuda";
    o.device_list = devices;
    o.tensor_parallel = ranks;
    o.steps_in_flight = 2;
    struct engine *e = NULL;
    struct err err;
    if (!CHECK_INT(fault_backend() ? engine_open_on(&o, fault_backend(), &e, &err) : engine_open(&o, &e, &err), 0)) {
        fprintf(stderr, "  devices %s: %s\n", devices, err.text);
        exit(1);
    }
    return e;
}

/* Returns false when the device made fewer calls than `call` before all was answered. */
static bool fail_once(const char *dir, const char *devices, int ranks, int device, int call, struct engine_ticket *want)
{
    struct engine *e = open_devices(dir, devices, ranks);
    const struct engine_info *info = engine_info(e);
    bool alone = info->n_devices == 1;
    fault_at(device, call);
    struct engine_ticket *got = five_run(e);
    bool reached = engine_device_health(e, device / ranks, NULL) < 0;
    for (int i = 0; i < FIVE; i++) {
        const struct eval_result *r = engine_result(got, i);
        bool ended = alone && reached && r->code == ERR_DEVICE;
        if (!CHECK(ended || five_same(r, engine_result(want, i), (size_t)info->config->n_layers)))
            fprintf(stderr, "  request %d, devices %s, call %d of device %d failing: code %d\n", i, devices, call, device, r->code);
    }
    CHECK(alone || engine_health(e, NULL) == 0);
    engine_ticket_free(got);
    engine_close(e);
    fault_at(device, 0);
    return reached;
}

/* Which device has how many of the requests differs from run to run, so the end is where several in a row were not reached. */
static void fail_in_turn(const char *dir, const char *devices, int ranks, int device, struct engine_ticket *want)
{
    int last = 0, most = fault_backend() ? MAX_CALLS_CPU : MAX_CALLS_CUDA;
    for (int call = first; call < most && call - last < UNREACHED + every; call += every)
        if (fail_once(dir, devices, ranks, device, call, want))
            last = call;
    CHECK(last > 10 && last + UNREACHED + every <= most);
    printf("devices %s, %d of them together: device %d failed at calls %d to %d, every %d\n", devices, ranks, device, first, last, every);
    fflush(stdout);
}

static int number(int argc, char **argv, int i, int otherwise)
{
    return i < argc ? atoi(argv[i]) : otherwise;
}

int main(int argc, char **argv)
{
    if (argc < 2 || fault_devices() < 2)
        return 77;
    every = number(argc, argv, 2, 1);
    first = number(argc, argv, 3, 1);
    int only_ranks = number(argc, argv, 4, 0), only_device = number(argc, argv, 5, -1);
    struct engine *one = open_devices(argv[1], "0", 1);
    five_requests(engine_info(one)->config->vocab);
    struct engine_ticket *want = five_run(one);
    for (int device = 0; device < 4; device++) {
        if (only_device >= 0 && device != only_device)
            continue;
        for (int ranks = 1; ranks <= 2 && device < 2; ranks++)
            if (!only_ranks || only_ranks == ranks)
                fail_in_turn(argv[1], "0,1", ranks, device, want);
        if (device >= 2 && fault_devices() >= 4)
            fail_in_turn(argv[1], "0,1,2,3", 2, device, want);
    }
    engine_ticket_free(want);
    engine_close(one);
    return check_result();
}
