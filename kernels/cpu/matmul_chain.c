/* The product of the plain way to multiply: an output is one chain of fused multiply-adds over k in ascending order, from +0. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/ops.h"

/* Row i of a panel [k, columns] as floats; what is missing of a full row is 0. */
static inline struct lanes panel_row(const void *b, enum dtype type, size_t i, int columns)
{
    float row[SUM_LANES] = {0};
    if (type == DTYPE_F32 && columns == SUM_LANES)
        return lanes_load((const float *)b + i * SUM_LANES, SUM_LANES);
    for (int j = 0; j < columns; j++)
        row[j] = act_get(b, type, i * columns + j);
    return lanes_load(row, SUM_LANES);
}

static inline void multiply_row(float *out, const float *x, const void *b, enum dtype type, int k, int columns)
{
    struct lanes sum = {0};
    for (int i = 0; i < k; i++)
        lanes_add_scaled(&sum, panel_row(b, type, i, columns), x[i]);
    memcpy(out, &sum, sizeof(float) * columns);
}

void CPU_NAME(matmul_chain)(const void *b, enum dtype type, int columns, const float *x, int k, int rows, float *out)
{
    for (int r = 0; r < rows; r++, x += k, out += columns) {
        if (columns < SUM_LANES)
            multiply_row(out, x, b, type, k, columns);
        else if (type == DTYPE_F32)
            multiply_row(out, x, b, DTYPE_F32, k, SUM_LANES);
        else
            multiply_row(out, x, b, DTYPE_BF16, k, SUM_LANES);
    }
}
