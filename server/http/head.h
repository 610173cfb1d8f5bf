/* Is the head of a request beyond doubt? Two readers that disagree about where a request ends are how one request is smuggled in another, so
 * whatever RFC 9110 and 9112 leave to a reader's mercy is refused here. Knows no library and no socket: what is checked is given. */
#pragma once
#include "common/err.h"
#include <stdbool.h>
#include <stddef.h>

#define HEAD_FIELDS_MAX 128
#define HEAD_HOST_MAX 255

/* Bytes, not NUL-terminated; white space around the value counts as part of it. */
struct head_field {
    const char *name, *value;
    size_t name_len, value_len;
};

/* The request target as it came, still encoded. */
struct head_target {
    size_t path;                  /* where the path begins: behind scheme and authority in the absolute form */
    bool rootless;                /* the absolute form without a path, which stands for "/" */
    char host[HEAD_HOST_MAX + 1]; /* of the absolute form, lower-case, without its port; else "" */
};

/* What the fields say. */
struct head_framing {
    bool has_length, chunked;     /* at most one of them */
    size_t length;                /* SIZE_MAX: that much or more */
    char host[HEAD_HOST_MAX + 1]; /* lower-case, without its port; "": no Host field, as HTTP/1.0 may */
};

/* ERR_INVALID naming what is wrong, or 0. `target` is NUL-terminated. The origin form, the absolute form of http and https, and "*" are
 * good; a NUL (%00), an escape that is none, blanks and control characters are not. */
int head_check_target(const char *target, struct head_target *ret, struct err *err);
/* The same for the method, the version (HTTP/1.0 and HTTP/1.1 are good) and the fields. */
int head_check_line(const char *method, const char *version, struct err *err);
int head_check_fields(const struct head_field *fields, size_t n, bool http11, struct head_framing *ret, struct err *err);
