/* See library_version.h. */
#include "server/http/library_version.h"
#include <microhttpd.h>
#include <string.h>

bool library_version_forgives(void)
{
    return !strncmp(MHD_get_version(), "0.", 2);
}
