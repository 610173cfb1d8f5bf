/* Lines in the log while something large is loaded, so that nobody takes it for a hang: one at each quarter. */
#pragma once
#include "common/log.h"
#include <stddef.h>

#define LOAD_PROGRESS_LEAST ((size_t)256 << 20) /* bytes of a checkpoint below which nothing is said */

/* One kind of work, of one thread. Zero-initialised it says nothing. */
struct load_progress {
    struct log *log;
    const char *what; /* "weights copied" */
    size_t bytes;     /* of the checkpoint */
    size_t total;     /* steps of this work */
    size_t done;
    int told; /* quarters */
};

void load_progress_add(struct load_progress *p, size_t steps); /* NULL is valid */
