/* Plain matrix products: the reference, and what is left where no faster way accepts a matrix.
 *
 * A panel is packed as [k, columns], so the inner loop runs over columns and each output element is one sum over k in ascending order. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/matrix.h"

enum { TILE = 8, PANEL = SUM_LANES };

static int plan(struct cpu *c, struct kern_matrix *w)
{
    w->x_type = DTYPE_F32;
    w->tile = TILE;
    w->panel = PANEL;
    w->packed_bytes = (size_t)w->n * w->k * dtype_size(w->weight_type);
    return 0;
}

static void *panel_at(const struct kern_matrix *w, int p)
{
    return (char *)w->packed + (size_t)p * PANEL * w->k * dtype_size(w->weight_type);
}

static int pack(struct cpu *c, struct kern_matrix *w, int p, const void *src, int thread)
{
    size_t columns = matrix_panel_columns(w, p), k = w->k;
    void *dst = panel_at(w, p);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < columns; j++)
            if (w->weight_type == DTYPE_F32)
                ((float *)dst)[i * columns + j] = ((const float *)src)[j * k + i];
            else
                ((uint16_t *)dst)[i * columns + j] = ((const uint16_t *)src)[j * k + i];
    return 0;
}

/* Row i of a panel [k, columns] as floats; what is missing of a full row is 0. */
static inline struct lanes panel_row(const void *b, enum dtype type, size_t i, int columns)
{
    float row[PANEL] = {0};
    if (type == DTYPE_F32 && columns == PANEL)
        return lanes_load((const float *)b + i * PANEL, PANEL);
    for (int j = 0; j < columns; j++)
        row[j] = act_get(b, type, i * columns + j);
    return lanes_load(row, PANEL);
}

/* out[columns] = sum_i x[i] b[i, columns], for at most PANEL columns. */
static inline void multiply_row(float *out, const float *x, const void *b, enum dtype type, int k, int columns)
{
    struct lanes sum = {0};
    for (int i = 0; i < k; i++)
        lanes_add_scaled(&sum, panel_row(b, type, i, columns), x[i]);
    memcpy(out, &sum, sizeof(float) * columns);
}

static void multiply(struct cpu *c, const struct kern_matrix *w, int p, const void *x, int m, float *out, int thread)
{
    int columns = matrix_panel_columns(w, p);
    const void *b = panel_at(w, p);
    for (int r = 0; r < m; r++, out += columns) {
        const float *row = (const float *)x + (size_t)r * w->k;
        if (columns < PANEL)
            multiply_row(out, row, b, w->weight_type, w->k, columns);
        else if (w->weight_type == DTYPE_F32)
            multiply_row(out, row, b, DTYPE_F32, w->k, PANEL);
        else
            multiply_row(out, row, b, DTYPE_BF16, w->k, PANEL);
    }
}

static void read_column(const struct kern_matrix *w, int p, int c, float *dst)
{
    size_t columns = matrix_panel_columns(w, p);
    for (int i = 0; i < w->k; i++)
        dst[i] = act_get(panel_at(w, p), w->weight_type, i * columns + c);
}

const struct cpu_matrix_ops matrix_ops_scalar = {
    .name = "scalar",
    .plan = plan,
    .pack = pack,
    .multiply = multiply,
    .read_column = read_column,
};
