/* Opening an engine on a given backend, for tests and measurements that put their own in its place. */
#pragma once
#include "engine/engine.h"
#include "kernels/backend.h"

/* As engine_open; o->device is not read. */
int engine_open_on(const struct engine_options *o, const struct backend *backend, struct engine **ret, struct err *err);
