/* Allocation failures, one at a time: malloc, calloc, realloc, aligned_alloc and free are wrapped by the linker in everything of ours
 * (tests/fail/meson.build); jansson goes through the same wrappers. */
#pragma once
#include <stdbool.h>

void failing_init(void);
/* The n-th allocation from now on fails, once. */
void failing_plan(long n);
/* Ends the plan; true when it came to the failure. */
bool failing_reached(void);
/* Allocations not yet freed. */
long failing_live(void);
/* From now on allocations of jansson do not count: 2.14 stops at an assertion of its own when memory ends in a string that has escapes. */
void failing_spare_jansson(void);
