/* Five requests of every kind, and whether two answers to them have the same bits; for tests that compare engines. */
#pragma once
#include "engine/engine_private.h"

enum { FIVE = 5, FIVE_LEN = 70, FIVE_NEW = 6, FIVE_TOP = 3 };

/* Makes them for a vocabulary: two that share a beginning, one that is short, two that go on. */
void five_requests(int vocab);
/* Submits them as one ticket and waits for its end. */
struct engine_ticket *five_run(struct engine *e);
/* Do both say the same to the bit? False as well where one failed. layers: of the model. */
bool five_same(const struct eval_result *a, const struct eval_result *b, size_t layers);
