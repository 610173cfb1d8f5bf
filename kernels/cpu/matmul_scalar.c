/* Plain matrix products: the reference, and what is left where no faster way accepts a matrix. A panel is packed as [k, columns]; the sums are those of
 * matmul_chain.c. */
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

static void pack(struct kern_matrix *w, int p, int c, int first, int n, const void *src)
{
    size_t columns = matrix_panel_columns(w, p);
    void *dst = panel_at(w, p);
    for (size_t i = 0; i < (size_t)n; i++)
        if (w->weight_type == DTYPE_F32)
            ((float *)dst)[(first + i) * columns + c] = ((const float *)src)[i];
        else
            ((uint16_t *)dst)[(first + i) * columns + c] = ((const uint16_t *)src)[i];
}

static void multiply(struct cpu *c, const struct kern_matrix *w, int p, const void *x, int m, float *out, int thread)
{
    c->chain(panel_at(w, p), w->weight_type, matrix_panel_columns(w, p), x, w->k, m, out);
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
