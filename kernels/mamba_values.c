/* See mamba_values.h. */
#include "kernels/mamba_values.h"
#include "kernels/portable.h"
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static int check_size(const char *name, int v, int least, int most, struct err *err)
{
    if (v >= least && v <= most)
        return 0;
    return err_field(err, ERR_UNSUPPORTED, name, "%s must be %d..%d for a Mamba router, not %d", name, least, most, v);
}

static int check_sizes(const struct mamba_parts *p, struct err *err)
{
    int r = check_size("router_dim", p->r, 1, MAMBA_INNER_MAX, err);
    if (r >= 0)
        r = check_size("router_expand * router_dim", p->e, 1, MAMBA_INNER_MAX, err);
    if (r >= 0)
        r = check_size("router_d_state", p->n_state, 1, MAMBA_STATE_MAX, err);
    if (r >= 0)
        r = check_size("router_d_conv", p->n_conv, 2, MAMBA_CONV_MAX, err);
    return r < 0 ? r : check_size("router_dt_rank", p->n_dt, 1, MAMBA_DT_MAX, err);
}

int mamba_values_take(float *dst, size_t ld, const struct kern_tensor *src, const char *name, int rows, int cols, struct err *err)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            float *v = &dst[(size_t)j * ld + (size_t)i];
            size_t at = (size_t)i * (size_t)cols + (size_t)j;
            dtype_to_f32(v, (const char *)src->data + at * dtype_size(src->type), src->type, 1);
            if (!isfinite(*v))
                return err_set(err, ERR_CORRUPT, "a Mamba router's %s holds a value that is not finite", name);
        }
    return 0;
}

/* dst[cols, rows] = src[rows, cols]; cols 1: a plain copy. */
static int take(float *dst, const struct kern_tensor *src, const char *name, int rows, int cols, struct err *err)
{
    return mamba_values_take(dst, (size_t)rows, src, name, rows, cols, err);
}

static int take_rates(struct mamba_values *v, const struct kern_tensor *a_log, struct err *err)
{
    int r = take(v->rate, a_log, "A_log", v->e * v->n_state, 1, err);
    for (int i = 0; r >= 0 && i < v->e * v->n_state; i++) {
        double rate = -portable_exp_double(v->rate[i]) / M_LN2;
        if (rate < -0x1p127)
            return err_set(err, ERR_CORRUPT, "a Mamba router's A_log holds %g, whose exponential is beyond float32", (double)v->rate[i]);
        v->rate[i] = (float)rate;
    }
    return r;
}

/* The linear end. `w`: scratch, [2, r]; out: scratch, [e, r]. */
static int take_end(struct mamba_values *v, const struct mamba_parts *p, float *w, float *out, struct err *err)
{
    float b[2];
    int r = take(w, &p->out_proj, "out_proj.weight", 2 * v->r, 1, err);
    if (r >= 0)
        r = take(b, &p->out_proj_bias, "out_proj.bias", 2, 1, err);
    if (r >= 0)
        r = take(out, &p->mixer_out_proj, "mixer.out_proj.weight", v->r, v->e, err);
    if (r < 0)
        return r;
    for (int j = 0; j < v->r; j++)
        v->of_u[j] = (double)w[j] - w[v->r + j];
    for (int e = 0; e < v->e; e++) {
        v->of_y[e] = 0;
        for (int j = 0; j < v->r; j++)
            v->of_y[e] += v->of_u[j] * out[(size_t)e * v->r + j];
    }
    v->offset = (double)b[0] - b[1];
    return 0;
}

static int take_all(struct mamba_values *v, const struct mamba_parts *p, float *scratch, struct err *err)
{
    const struct {
        float *dst;
        const struct kern_tensor *src;
        const char *name;
        int rows, cols;
    } plain[] = {
        {v->norm, &p->norm, "norm.weight", v->r, 1},
        {v->conv, &p->conv1d, "mixer.conv1d.weight", v->e, v->n_conv},
        {v->conv_bias, &p->conv1d_bias, "mixer.conv1d.bias", v->e, 1},
        {v->dt, &p->dt_proj, "mixer.dt_proj.weight", v->e, v->n_dt},
        {v->dt_bias, &p->dt_proj_bias, "mixer.dt_proj.bias", v->e, 1},
        {v->skip, &p->skip, "mixer.D", v->e, 1},
    };
    int r = take_rates(v, &p->a_log, err);
    for (size_t i = 0; r >= 0 && i < sizeof(plain) / sizeof(*plain); i++)
        r = take(plain[i].dst, plain[i].src, plain[i].name, plain[i].rows, plain[i].cols, err);
    return r < 0 ? r : take_end(v, p, scratch, scratch + 2 * (size_t)v->r, err);
}

/* Every array in one allocation, doubles first. */
static int allocate(struct mamba_values *v)
{
    size_t r = (size_t)v->r, e = (size_t)v->e, doubles = r + e, floats = r + e * (size_t)(v->n_conv + 1 + v->n_dt + 1 + v->n_state + 1);
    v->of_u = malloc(doubles * sizeof(double) + floats * sizeof(float));
    if (!v->of_u)
        return ERR_NOMEM;
    v->memory = v->of_u;
    v->of_y = v->of_u + r;
    v->norm = (float *)(v->of_y + e);
    v->conv = v->norm + r;
    v->conv_bias = v->conv + e * (size_t)v->n_conv;
    v->dt = v->conv_bias + e;
    v->dt_bias = v->dt + e * (size_t)v->n_dt;
    v->rate = v->dt_bias + e;
    v->skip = v->rate + e * (size_t)v->n_state;
    return 0;
}

int mamba_values_new(const struct mamba_parts *p, struct mamba_values *ret, struct err *err)
{
    struct mamba_values v = {
        .d = p->d, .r = p->r, .e = p->e, .n_state = p->n_state, .n_conv = p->n_conv, .n_dt = p->n_dt, .x_cols = p->n_dt + 2 * p->n_state};
    int r = check_sizes(p, err);
    if (r < 0)
        return r;
    v.eps = p->eps;
    float *scratch = malloc((size_t)v.r * (size_t)(v.e + 2) * sizeof(*scratch));
    if (!scratch || allocate(&v) < 0) {
        free(scratch);
        return err_set(err, ERR_NOMEM, "not enough memory for a Mamba router");
    }
    r = take_all(&v, p, scratch, err);
    free(scratch);
    if (r < 0)
        mamba_values_free(&v);
    else
        *ret = v;
    return r;
}

void mamba_values_free(struct mamba_values *v)
{
    free(v->memory);
    *v = (struct mamba_values){0};
}
