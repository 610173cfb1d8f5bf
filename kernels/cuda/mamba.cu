/* The Mamba router: its weights on the device, and which kernels a step takes. */
#include "kernels/cuda/mamba.cuh"
#include <stdlib.h>
#include <string.h>

static int up_to(int v, int step)
{
    return (v + step - 1) / step * step;
}

/* ---- weights ---- */

/* An image of the device memory, filled on the host. */
struct image {
    char *host;
    size_t bytes; /* taken */
    char *device; /* NULL: sizes are counted */
};

/* The next `bytes`, from a multiple of 16; *ret_device: where they will lie. */
static void *cut(struct image *m, size_t bytes, const void **ret_device)
{
    size_t at = m->bytes;
    m->bytes += (bytes + 15) / 16 * 16;
    *ret_device = m->device + at;
    return m->host ? m->host + at : NULL;
}

/* A copy of n floats. */
static const float *put(struct image *m, const float *src, size_t n)
{
    const void *device;
    void *host = cut(m, n * sizeof(float), &device);
    if (host)
        memcpy(host, src, n * sizeof(float));
    return (const float *)device;
}

/* w[rows, cols] as [cols up to the next slice, ld]. */
static int put_transposed(struct image *m, const float **ret, const struct kern_tensor *w, const char *name, int rows, int cols, int ld,
                          struct err *err)
{
    const void *device;
    float *host = (float *)cut(m, (size_t)up_to(cols, SLICE) * ld * sizeof(float), &device);
    *ret = (const float *)device;
    return host ? mamba_values_take(host, (size_t)ld, w, name, rows, cols, err) : 0;
}

static const double *put_doubles(struct image *m, const double *src, int n)
{
    const void *device;
    void *host = cut(m, n * sizeof(double), &device);
    if (host)
        memcpy(host, src, n * sizeof(double));
    return (const double *)device;
}

/* Padding is left as it is: zero. */
static int fill(struct image *m, struct mamba_weights *w, const struct mamba_parts *p, const struct mamba_values *v, struct err *err)
{
    size_t e = (size_t)w->e;
    const void *norm;
    w->of_u = put_doubles(m, v->of_u, w->r);
    w->of_y = put_doubles(m, v->of_y, w->e);
    float *host = (float *)cut(m, w->rk * sizeof(float), &norm);
    if (host)
        memcpy(host, v->norm, w->r * sizeof(float));
    w->norm = (const float *)norm;
    w->conv = put(m, v->conv, e * w->n_conv);
    w->conv_bias = put(m, v->conv_bias, e);
    w->dt = put(m, v->dt, e * w->n_dt);
    w->dt_bias = put(m, v->dt_bias, e);
    w->rate = put(m, v->rate, e * w->n_state);
    w->skip = put(m, v->skip, e);
    int r = put_transposed(m, &w->mix_t, &p->mixer_in_proj, "mixer.in_proj.weight", 2 * w->e, w->r, w->mix_ld, err);
    return r < 0 ? r : put_transposed(m, &w->x_t, &p->x_proj, "mixer.x_proj.weight", v->x_cols, w->e, w->x_ld, err);
}

static struct mamba_weights sizes_of(const struct mamba_values *v)
{
    struct mamba_weights w = {v->d, v->r, v->e, v->n_state, v->n_conv, v->n_dt};
    w.rk = up_to(v->r, SLICE);
    w.ep = up_to(v->e, SLICE);
    w.mix_ld = up_to(2 * v->e, 64);
    w.x_ld = up_to(v->x_cols, 64);
    w.zp = up_to(2 * v->e, 4);
    w.sp = mamba_lanes(v->n_state) * mamba_states_a_lane(v->n_state);
    w.xp = up_to(v->x_cols, 4);
    w.eps = v->eps;
    w.offset = v->offset;
    return w;
}

static int upload_weights(struct cuda_ctx *c, struct kern_mamba *m, const struct mamba_parts *p, const struct mamba_values *v,
                          struct err *err)
{
    struct image image = {};
    m->w = sizes_of(v);
    fill(&image, &m->w, p, v, err);
    m->bytes = image.bytes;
    m->memory = c->k.backend->alloc(&c->k, m->bytes);
    image = {(char *)calloc(1, m->bytes), 0, (char *)bytes_of(m->memory)};
    int r = image.host && m->memory ? fill(&image, &m->w, p, v, err) : err_set(err, ERR_NOMEM, "not enough memory for a Mamba router");
    if (r >= 0)
        r = c->k.backend->upload(&c->k, m->memory, image.host, m->bytes);
    free(image.host);
    return c->failed.code ? err_set(err, c->failed.code, "%s", c->failed.text) : r;
}

static void mamba_free_cuda(struct kern_ctx *k, struct kern_mamba *m)
{
    if (!m)
        return;
    k->ops->matrix_free(k, m->in);
    k->ops->matrix_free(k, m->mix);
    k->ops->matrix_free(k, m->x);
    k->backend->free(k, m->memory);
    free(m);
}

static int mamba_new_cuda(struct kern_ctx *k, const struct mamba_parts *p, struct kern_mamba **ret, struct err *err)
{
    struct mamba_values v = {};
    struct matrix_part in = {p->in_proj.data, p->in_proj.type, p->r, p->in_proj_bias.data, p->in_proj_bias.type};
    struct matrix_part mix = {p->mixer_in_proj.data, p->mixer_in_proj.type, 2 * p->e};
    struct matrix_part x = {p->x_proj.data, p->x_proj.type, p->n_dt + 2 * p->n_state};
    struct kern_mamba *m = (struct kern_mamba *)calloc(1, sizeof(*m));
    int r = m ? mamba_values_new(p, &v, err) : err_set(err, ERR_NOMEM, "not enough memory for a Mamba router");
    if (r >= 0)
        r = upload_weights(ctx_of(k), m, p, &v, err);
    if (r >= 0)
        r = k->ops->matrix_new(k, MATRIX_ACCURATE, &in, 1, p->d, &m->in, err);
    if (r >= 0 && k->act == DTYPE_F32)
        r = k->ops->matrix_new(k, MATRIX_ACCURATE, &mix, 1, p->r, &m->mix, err);
    if (r >= 0 && k->act == DTYPE_F32)
        r = k->ops->matrix_new(k, MATRIX_ACCURATE, &x, 1, p->e, &m->x, err);
    mamba_values_free(&v);
    if (r < 0) {
        mamba_free_cuda(k, m);
        return r;
    }
    *ret = m;
    return 0;
}

static size_t mamba_bytes_cuda(const struct kern_mamba *m)
{
    return m->bytes + m->in->bytes + (m->mix ? m->mix->bytes + m->x->bytes : 0);
}

/* ---- the op ---- */

/* Cuts the arrays from p, which may be NULL; returns how many floats they take. */
static size_t divide(struct mamba_rows *b, const struct mamba_weights &w, float *p, int rows, bool tiled)
{
    float *const first = p;
    size_t n = (size_t)up_to(rows, 4), most = n + SCAN_BEYOND;
    int lanes = mamba_lanes(w.n_state);
    b->n = (int)n;
    for (b->ch_bits = 0; lanes << b->ch_bits < SCAN_THREADS;)
        b->ch_bits++;
    b->u = p;
    b->az = p += n * w.r;
    b->c = p += n * w.zp;
    b->delta = p += n * w.ep;
    b->bc = p += most * 2 * w.ep;
    b->y = p += most * 2 * w.sp;
    b->x = p += n * w.ep;
    if (tiled)
        b->x = NULL;
    else
        p += n * w.xp;
    return (size_t)(p - first);
}

static int many(struct cuda_ctx *c, const struct kern_mamba *m, const struct dev_f32 *x, const struct mamba_step &s,
                const struct mamba_end &end)
{
    bool tiled = mamba_tile_fits(c, m->w);
    struct mamba_rows b;
    float *scratch = (float *)cuda_scratch(c, SCRATCH_MAMBA, divide(&b, m->w, NULL, s.all.n_max, tiled) * sizeof(float));
    if (!scratch)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    divide(&b, m->w, scratch, s.all.n_max, tiled);
    int r = c->k.ops->matmul_accurate(&c->k, dev_f32_in(to_dev(b.u), 0), x, m->in, s.all);
    if (r >= 0)
        r = tiled ? mamba_tile_before(c, m, s, b) : mamba_rows_before(c, m, s, b);
    if (r >= 0)
        r = mamba_scan(c, m, s, b);
    return r < 0 ? r : mamba_rows_after(c, m, s, b, end);
}

/* u comes as the accurate matmul gives it, or in parts that are added up as it adds them. */
static int few(struct cuda_ctx *c, const struct kern_mamba *m, const struct dev_f32 *x, const struct mamba_step &s,
               const struct mamba_end &end)
{
    bool parts = c->level == CUDA_WGMMA && tensor_map_fits(f32_of(x), m->w.d * sizeof(float));
    size_t floats = parts ? mamba_parts_floats(m->in) : (size_t)s.all.n_max * m->w.r;
    float *scratch = (float *)cuda_scratch(c, SCRATCH_MAMBA, floats * sizeof(float));
    struct mamba_parts_of_u p = {};
    if (!scratch)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    int r = parts ? mamba_parts_sm90(c, m, f32_of(x), s.all.n_max, scratch, &p)
                  : c->k.ops->matmul_accurate(&c->k, dev_f32_in(to_dev(scratch), 0), x, m->in, s.all);
    return r < 0 ? r : mamba_few(c, m, s, scratch, p, end);
}

static int route_mamba_cuda(struct kern_ctx *k, const struct route_out *to, struct dev_u8 *bad, const struct kern_mamba *m,
                            const struct dev_f32 *x, const struct kern_step *s, int router, struct rows n)
{
    struct mamba_step step = {s->all,       runs_of(s->runs), i32_of(s->run_of), saves_of(s->saves), f32_of(s->states), s->n_runs,
                              s->n_routers, router,           s->state_floats};
    struct mamba_end end = {decisions_of(to), u8_of(bad), n};
    if (s->all.n_max == 0)
        return 0;
    if (k->act == DTYPE_F32)
        return mamba_f32(ctx_of(k), m, x, step, end);
    return mamba_few_fits(m, step) ? few(ctx_of(k), m, x, step, end) : many(ctx_of(k), m, x, step, end);
}

void mamba_cuda_init(struct kern_ops *o)
{
    o->mamba_new = mamba_new_cuda;
    o->mamba_free = mamba_free_cuda;
    o->mamba_bytes = mamba_bytes_cuda;
    o->route_mamba = route_mamba_cuda;
}
