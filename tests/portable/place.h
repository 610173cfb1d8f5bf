/* Where a model is computed: a device and one of its levels. */
#pragma once

struct place {
    const char *device; /* "cpu", "cuda" */
    const char *level;  /* NULL: the device's best */
    int n_threads;      /* of the CPU */
};
