/* How near float32 products are to double. */
#pragma once
#include "tests/check/harness.h"

/* float32, by rms and by the largest error of a shape: no further off than plain accumulation, on even values and on rows of x and of the weights that have an
 * element of 2^10 times the others. */
void check_accuracy(struct check *c);
