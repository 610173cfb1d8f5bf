/* Every value of a JSON text in turn becomes one of another type or size, or goes: what reads the text must take it or say what is wrong. */
#pragma once
#include <jansson.h>

/* Calls `with` for each changed form of root, which is as before afterwards. Of containers of over MANY members, the first few change. */
void json_values_each(json_t *root, void (*with)(const json_t *root, const char *where, void *user), void *user);
