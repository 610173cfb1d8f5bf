/* The body of a request becomes values. */
#pragma once
#include "server/api/api.h"

/* Parses the request's body into c->body, an object; lists of ids under the members `ids` (ended by NULL; NULL: none) go to c->ids. What is held
 * is charged: by estimate before, by fact after. The text is dropped. */
int body_parse(struct call *c, const char *const *ids, struct err *err);
