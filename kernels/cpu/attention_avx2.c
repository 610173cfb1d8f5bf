/* Attention in float32 on AVX2. */
#include "kernels/cpu/attention_vector.h"

const struct attention_kernel attention_avx2 = ATTENTION_VECTOR;
