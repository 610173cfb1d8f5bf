/* What the engine's fields are called outside: the flag that sets an option, the field of a request over HTTP. One table (names.c). */
#pragma once
#include "common/err.h"

/* Both rewrite the names of engine fields in an error's text and param; other words, and a NULL or empty error, stay as they are. */
void names_as_flags(struct err *err);
void names_as_request_fields(struct err *err);
