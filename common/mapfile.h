/* Read-only file mapping. */
#pragma once
#include "common/err.h"
#include <stddef.h>

struct mapfile {
    const unsigned char *data; /* NULL for an empty or closed file */
    size_t len;
};

/* Regular files only. Errors: ERR_NOT_FOUND, ERR_IO. */
int mapfile_open(struct mapfile *m, const char *path, struct err *err);
void mapfile_close(struct mapfile *m); /* copes with a zeroed struct and with a second call */
