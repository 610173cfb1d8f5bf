/* Attention in float32 on AVX-512. */
#include "kernels/cpu/attention_vector.h"

const struct attention_kernel attention_avx512 = ATTENTION_VECTOR;
