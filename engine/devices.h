/* Which devices of a backend an engine takes. */
#pragma once
#include "engine/engine.h"
#include "kernels/backend.h"

struct devices {
    int n;                         /* 1..ENGINE_DEVICES_MAX */
    int index[ENGINE_DEVICES_MAX]; /* [n] their numbers, none twice */
};

/* text: "0,2", "all", or NULL: number 0. ERR_INVALID names `device_list`. */
int devices_read(const char *text, const struct backend *backend, struct devices *ret, struct err *err);
