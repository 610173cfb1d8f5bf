/* Which hosts a request may be meant for. A web page whose name is made to lead to this machine (DNS rebinding) still names itself in Host, so a
 * server that only this machine can reach refuses names that others can own. */
#pragma once
#include <stdbool.h>

/* allowed: NULL: any; else names of one list, separated by commas ("*": any), beside what is always good: addresses, localhost and what lies below
 * it, names without a dot, and "" (HTTP/1.0 without Host). `host` is in lower case and has no port. */
bool hosts_allow(const char *allowed, const char *host);
/* Is it an address that only this machine reaches? */
bool hosts_is_loopback(const char *address);
