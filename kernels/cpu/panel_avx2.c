/* Panel matmuls in float32 on AVX2. */
#include "kernels/cpu/panel_vector.h"

const struct panel_kernel panel_avx2_wf32 = PANEL_VECTOR(wf32);
const struct panel_kernel panel_avx2_wbf16 = PANEL_VECTOR(wbf16);
