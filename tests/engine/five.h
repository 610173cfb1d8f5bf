/* Five requests of every kind, and whether two answers to them have the same bits; for tests that compare engines. */
#pragma once
#include "engine/engine_private.h"

enum { FIVE = 5, FIVE_LEN = 70, FIVE_NEW = 6, FIVE_TOP = 3 };

/* Of an engine that has them in several steps: all but the device. Strings are borrowed. */
struct engine_options five_options(const char *dir, const char *dtype);
/* Makes them for a vocabulary: two that share a beginning, one that is short, two that go on. */
void five_requests(int vocab);
/* Submits them as one ticket and waits for its end. */
struct engine_ticket *five_run(struct engine *e);
/* Do both say the same to the bit? False as well where one failed. layers: of the model. */
bool five_same(const struct eval_result *a, const struct eval_result *b, size_t layers);
