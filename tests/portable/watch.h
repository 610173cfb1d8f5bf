/* Which op differs first between two places: a model is traced on both, every buffer of the step is hashed after every op, and the first op whose
 * buffers differ is named, with the layer, the buffer, the element and its two values. */
#pragma once
#include "tests/portable/place.h"
#include <stdint.h>

/* Prints a sentence to stderr. ids: [n] tokens, one sequence. Returns 1: a difference was found, 0: none was, or a negative code. */
int watch_difference(const char *model_dir, const struct place *a, const struct place *b, const int32_t *ids, int n);
