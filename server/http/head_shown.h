/* The head of a request as libmicrohttpd shows it, checked (head.h). What its parser forgives and shows no more is found, where it can be,
 * in how the parts lie in its buffer: a name, a NUL in the colon's place, blanks, the value, and two NULs in the place of CR and LF. */
#pragma once
#include "server/http/head.h"
#include <microhttpd.h>

/* `target` is where the request target began when its line had come, `target_len` how long it was then. Whatever is wrong is ERR_INVALID. */
int head_shown_check(struct MHD_Connection *mhd, const char *method, const char *target, size_t target_len, const char *version,
                     struct head_framing *ret, struct err *err);
