/* Calls of our own that fail, one at a time: of arenas, buffers and charges, and of the HTTP library. An arena's block and a buffer's capacity serve
 * many of their callers, so failing.h, which fails what they allocate, seldom comes to these. The linker wraps them where another object calls
 * them (tests/fail/meson.build).
 *
 * Of each place in the code only the first calls of a run count, so that loops do not make a test long. */
#pragma once
#include <stdbool.h>

/* The n-th such call from now on fails, once. */
void failing_own_plan(long n);
/* Ends the plan: the name of the function that failed, or NULL. */
const char *failing_own_reached(void);
/* For failing_http.c: counts a call of `name` from the code at `at`; true: it is the one to fail. */
bool failing_own_refuses(const char *name, const void *at);
