/* What an executor may rely on in the rows that it is given, checked. */
#pragma once
#include "engine/schedule/executor.h"

/* NULL: the rows are sound; else what is wrong with them. */
const char *rows_check(const struct step_rows *s, const struct executor_limits *l);
/* A hash of all that an executor may read of the rows until their step is over. */
uint64_t rows_check_hash(const struct step_rows *s);
