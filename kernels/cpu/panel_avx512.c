/* Panel matmuls in float32 on AVX-512. */
#include "kernels/cpu/panel_vector.h"

const struct panel_kernel panel_avx512_wf32 = PANEL_VECTOR(wf32);
const struct panel_kernel panel_avx512_wbf16 = PANEL_VECTOR(wbf16);
