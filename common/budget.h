/* Memory that many requests share. What a request takes is counted in its charge, before it is allocated where its size can be told, and by
 * what was allocated after. */
#pragma once
#include "common/err.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct budget {
    _Atomic size_t limit, used; /* bytes */
};

/* One request's share; used by one thread at a time. Without a budget it only counts. */
struct charge {
    struct budget *budget; /* NULL: no limit */
    size_t taken, peak;
    size_t refused; /* what the request would have held when it was refused last; 0: never */
};

void budget_init(struct budget *b, size_t limit);

/* False, and nothing is taken, where the budget would be exceeded. A NULL charge takes anything. */
bool charge_take(struct charge *c, size_t bytes);
void charge_give(struct charge *c, size_t bytes);
/* Takes or gives so that `was` bytes become `is`. */
bool charge_change(struct charge *c, size_t was, size_t is);
void charge_done(struct charge *c); /* gives back what is left */
/* After a refusal: ERR_TOO_LARGE if the request can never fit, else ERR_BUSY. */
int charge_error(const struct charge *c, struct err *err);
