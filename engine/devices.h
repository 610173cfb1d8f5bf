/* Which devices of a backend an engine takes. */
#pragma once
#include "engine/engine.h"
#include "kernels/backend.h"

struct devices {
    int n;                         /* 1..ENGINE_DEVICES_MAX */
    int index[ENGINE_DEVICES_MAX]; /* [n] their numbers, none twice */
};

/* text: "0,2", "all", or NULL: the first `ranks`. They are taken in groups of `ranks`, which must use all. ERR_INVALID names `device_list` or
 * `tensor_parallel`. */
int devices_read(const char *text, int ranks, const struct backend *backend, struct devices *ret, struct err *err);
