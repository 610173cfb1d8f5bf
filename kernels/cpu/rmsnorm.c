/* RMS norm: scalar form. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/ops.h"

struct rmsnorm {
    void *y;
    enum dtype type;
    const float *x, *w;
    int d;
    float eps;
};

static inline void norm_row(void *y, enum dtype type, const float *x, const float *w, int d, float eps)
{
    float scale = rms_scale_c(x, d, eps);
    for (int i = 0; i < d; i++)
        act_put(y, type, i, x[i] * scale * w[i]);
}

static void row(void *arg, int r)
{
    const struct rmsnorm *a = arg;
    const float *x = a->x + (size_t)r * a->d;
    void *y = act_at_mut(a->y, a->type, (size_t)r * a->d);
    if (a->type == DTYPE_F32)
        norm_row(y, DTYPE_F32, x, a->w, a->d, a->eps);
    else
        norm_row(y, DTYPE_BF16, x, a->w, a->d, a->eps);
}

static int rmsnorm_c(struct kern_ctx *k, struct dev_act *y, const struct dev_f32 *x, const struct dev_f32 *w, struct rows n, int d,
                     float eps)
{
    struct rmsnorm a = {act_of(y), k->act, f32_of(x), f32_of(w), d, eps};
    cpu_for_rows(k, n, 2 * d, row, &a);
    return 0;
}

void CPU_NAME(rmsnorm_init)(struct kern_ops *o)
{
    o->rmsnorm = rmsnorm_c;
}
