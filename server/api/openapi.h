/* server/api/openapi.json as it was at build time; embed.py makes the source of it. */
#pragma once
#include <stddef.h>

extern const char openapi_json[];
extern const size_t openapi_json_len;
