/* The Mamba router's work on single rows: norm, convolution, step sizes, decision; and the loop over blocks. Names are those of kernels/mamba.h. */
#include "kernels/cpu/mamba.h"
#include "kernels/cpu/ops.h"

static void norm_row(void *arg, int i)
{
    const struct mamba_block *b = arg;
    int d = b->w->v.r;
    const float *u = b->u + (size_t)i * d, *w = b->w->v.norm;
    float *restrict y = b->normed + (size_t)i * d, scale = rms_scale_c(u, d, b->w->v.eps);
    for (int j = 0; j < d; j++)
        y[j] = u[j] * scale * w[j];
}

static void conv_row(void *arg, int i)
{
    const struct mamba_block *b = arg;
    const struct mamba_values *v = &b->w->v;
    const struct kern_run *run = &b->runs[b->run_of[b->row0 + i]];
    const float *tail = mamba_state(b, run->state_in);
    float *restrict c = b->c + (size_t)i * v->e;
    memcpy(c, v->conv_bias, sizeof(float) * v->e);
    for (int j = 0; j < v->n_conv; j++) {
        const float *restrict a = mamba_a(b, tail, i, b->row0 + i - run->row0, v->n_conv - 1 - j), *restrict w = v->conv + (size_t)j * v->e;
        for (int e = 0; e < v->e; e++)
            c[e] = c[e] + w[e] * a[e];
    }
    for (int e = 0; e < v->e; e++)
        c[e] = portable_silu(c[e]);
}

static void delta_row(void *arg, int i)
{
    const struct mamba_block *b = arg;
    const struct mamba_values *v = &b->w->v;
    const float *restrict x = b->x + (size_t)i * v->x_cols, *restrict c = b->c + (size_t)i * v->e;
    float *restrict d = b->delta + (size_t)i * b->w->ep, *restrict in = b->input + (size_t)i * b->w->ep;
    memcpy(d, v->dt_bias, sizeof(float) * v->e);
    for (int j = 0; j < v->n_dt; j++) {
        const float *restrict w = v->dt + (size_t)j * v->e;
        for (int e = 0; e < v->e; e++)
            d[e] = d[e] + w[e] * x[j];
    }
    for (int e = 0; e < v->e; e++) {
        d[e] = portable_softplus(d[e]);
        in[e] = d[e] * c[e];
    }
}

/* sum_i w[i] x[i] in double, in 8 parts. */
static inline double dot_wide(const double *w, const float *x, int n)
{
    double part[8] = {0};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            part[l] += w[i + l] * x[i + l];
    for (; i < n; i++)
        part[i & 7] += w[i] * x[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static void decide_row(void *arg, int i)
{
    const struct mamba_block *b = arg;
    const struct mamba_values *v = &b->w->v;
    const float *restrict z = b->az + (size_t)i * 2 * v->e + v->e, *restrict c = b->c + (size_t)i * v->e;
    size_t at = (size_t)i * b->w->ep;
    float *restrict y = b->y[0] + at;
    const float *restrict y1 = b->y[1] + at, *restrict y2 = b->y[2] + at, *restrict y3 = b->y[3] + at;
    for (int e = 0; e < v->e; e++)
        y[e] = (((y[e] + y1[e]) + (y2[e] + y3[e])) + v->skip[e] * c[e]) * portable_silu(z[e]);
    double margin = dot_wide(v->of_u, b->u + (size_t)i * v->r, v->r) + dot_wide(v->of_y, y, v->e) + v->offset;
    if (b->bad)
        b->bad[b->row0 + i] = margin - margin != 0;
    if (b->wanted[i])
        route_decide(&b->to, b->row0 + i, margin);
}

static struct dev_f32 *to_f32(float *p)
{
    return dev_f32_in(to_dev(p), 0);
}

static int run_block(struct mamba_block *b, const struct dev_f32 *x)
{
    const struct mamba_values *v = &b->w->v;
    const struct kern_ops *o = &cpu_of(b->k)->ops;
    struct rows rows = {.n_max = b->n};
    int r = o->matmul_accurate(b->k, to_f32(b->u), dev_f32_at(x, (size_t)b->row0 * v->d), b->w->in, rows);
    cpu_for_rows(b->k, rows, 2 * v->r, norm_row, b);
    if (r >= 0)
        r = o->matmul_accurate(b->k, to_f32(b->az), to_f32(b->normed), b->w->mix, rows);
    cpu_for_rows(b->k, rows, (v->n_conv + 12) * v->e, conv_row, b);
    if (r >= 0)
        r = o->matmul_accurate(b->k, to_f32(b->x), to_f32(b->c), b->w->x, rows);
    cpu_for_rows(b->k, rows, (v->n_dt + 20) * v->e, delta_row, b);
    CPU_NAME(mamba_scan)(b);
    cpu_for_rows(b->k, rows, 16 * v->e, decide_row, b);
    return r;
}

/* Marks the block's rows that are in the set; *next: of the set's list, as far as it has been read. */
static void mark_wanted(const struct mamba_block *b, const struct rows *n, int count, int *next)
{
    memset(b->wanted, 0, b->n);
    for (; *next < count && rows_at(n, *next) < b->row0 + b->n; (*next)++)
        b->wanted[rows_at(n, *next) - b->row0] = 1;
}

static int route_mamba_c(struct kern_ctx *k, const struct route_out *to, struct dev_u8 *bad, const struct kern_mamba *w,
                         const struct dev_f32 *x, const struct kern_step *s, int router, struct rows n)
{
    struct mamba_block b = {.k = k,
                            .w = w,
                            .to = decisions_of(to),
                            .bad = u8_of(bad),
                            .s = s,
                            .runs = runs_of(s->runs),
                            .run_of = i32_of(s->run_of),
                            .saves = saves_of(s->saves),
                            .router = router};
    int rows = rows_count(s->all), wanted = rows_count(n), next = 0, r = 0;
    size_t row = 2 * (size_t)w->v.e, halo = (size_t)w->v.n_conv - 1;
    mamba_divide_scratch(&b);
    for (; r >= 0 && b.row0 < rows; b.row0 += b.n) {
        if (b.row0) /* rows that the block's convolution looks back on */
            memmove(b.az - halo * row, b.az + ((ptrdiff_t)b.n - (ptrdiff_t)halo) * (ptrdiff_t)row, halo * row * sizeof(float));
        b.n = min_int(MAMBA_BLOCK, rows - b.row0);
        b.run0 = b.run_of[b.row0];
        mark_wanted(&b, &n, wanted, &next);
        r = run_block(&b, x);
    }
    return r;
}

void CPU_NAME(mamba_init)(struct kern_ops *o)
{
    o->route_mamba = route_mamba_c;
}
