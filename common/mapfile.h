/* Read-only file mapping that survives a file which shrinks: reading beyond its new end gives zeros instead of SIGBUS, and
 * mapfile_check tells. For that the first mapping installs a SIGBUS handler; faults elsewhere go on to the handler before it. */
#pragma once
#include "common/err.h"
#include <stddef.h>
#include <sys/types.h>
#include <time.h>

struct mapfile {
    const unsigned char *data; /* NULL for an empty or closed file */
    size_t len;
    /* mapfile.c's own */
    char *path;
    int guard; /* 0: none */
    dev_t dev;
    ino_t ino;
    struct timespec changed;
};

/* Regular files only; others are refused without waiting for them. Errors: ERR_NOT_FOUND, ERR_IO, ERR_NOMEM. */
int mapfile_open(struct mapfile *m, const char *path, struct err *err);
/* ERR_IO if what was read may not have been one state of the file: it was cut, written or replaced since mapfile_open. */
int mapfile_check(const struct mapfile *m, struct err *err);
void mapfile_close(struct mapfile *m); /* copes with a zeroed struct and with a second call */
