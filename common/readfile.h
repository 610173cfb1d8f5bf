/* A whole file in memory, for files that are small by nature. */
#pragma once
#include "common/buf.h"
#include "common/err.h"

/* Appends the file's bytes to b, which bounds them. Regular files only; FIFOs and devices are refused without waiting for them.
 * Errors: ERR_NOT_FOUND, ERR_IO, ERR_TOO_LARGE (more than b->max_bytes), ERR_NOMEM. */
int readfile(const char *path, struct buf *b, struct err *err);
