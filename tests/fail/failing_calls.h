/* Calls to the system that fail, one at a time: what can fail of files, sockets, mappings and threads is wrapped by the linker in everything of ours
 * (tests/fail/meson.build). Reads and writes of eventfds are left alone, since they cannot fail. */
#pragma once
#include <stdbool.h>

/* The n-th such call from now on fails, once. */
void failing_calls_plan(long n);
/* Ends the plan: the name of the call that failed, or NULL. */
const char *failing_calls_reached(void);
/* Calls of this thread are not counted while it is so. */
void failing_calls_exempt(bool exempt);
