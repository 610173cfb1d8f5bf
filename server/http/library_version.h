/* Which libmicrohttpd runs. It has one soname from 0.9.75 to 1.0, so it may be another than the one whose header was compiled. */
#pragma once
#include <stdbool.h>

/* Before 1.0: its parser forgives, and its strictest level adds little. */
bool library_version_forgives(void);
