/* Which pages of other origins may read answers (the Fetch standard's CORS protocol). Without a list none may. */
#pragma once
#include "common/err.h"

/* `list`: "*", or origins as browsers send them (scheme://host or scheme://host:port) with commas between. ERR_INVALID names the one that is
 * none. */
int cors_check(const char *list, struct err *err);
/* The value of Access-Control-Allow-Origin for a request of this origin; NULL: it is not on the list, or one of both is NULL. Borrowed. */
const char *cors_allow(const char *list, const char *origin);
