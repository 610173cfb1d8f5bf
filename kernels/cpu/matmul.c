/* The matmul ops: gathers rows into tiles, spreads (panel, tiles) over the pool, applies epilogues. matrix.h has the design. */
#include "kernels/cpu/cpu_math.h"
#include "kernels/cpu/matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/weight_memory.h"
#include <assert.h>
#include <stdlib.h>

/* A job under way, a block of rows at a time. */
struct matmul {
    struct cpu *c;
    struct matmul_job job;
    int row0, n, n_tiles; /* of the block at hand: rows row0 .. row0+n-1 of the set */
    int gather0;          /* tiles from here on lie in c->matmul->x; earlier ones are read where they are */
    int groups;           /* the tiles of a panel are shared by this many tasks */
};

static void gather_row(const struct matmul *a, int i)
{
    int k = a->job.w->k;
    void *dst = act_at_mut(a->c->matmul->x, a->job.w->x_type, (size_t)i * k);
    if (i >= a->n) {
        memset(dst, 0, k * dtype_size(a->job.w->x_type));
        return;
    }
    const void *src = act_at(a->job.x, a->job.x_type, (size_t)rows_at(&a->job.rows, a->row0 + i) * a->job.ldx);
    if (a->job.x_type == a->job.w->x_type)
        memcpy(dst, src, k * dtype_size(a->job.x_type));
    else
        dtype_to_f32(dst, src, a->job.x_type, k);
}

static void gather_tile(void *arg, int i, int thread)
{
    const struct matmul *a = arg;
    int first = (a->gather0 + i) * a->job.w->tile;
    for (int r = first; r < first + a->job.w->tile; r++)
        gather_row(a, r);
}

static inline void store_row(void *y, enum dtype type, const float *v, int n)
{
    for (int j = 0; j < n; j++)
        act_put(y, type, j, v[j]);
}

/* v [columns] is the biased product of row r with the columns of panel p. */
static void finish_row(const struct matmul *a, int r, int p, int columns, float *v)
{
    size_t first = (size_t)p * a->job.w->panel;
    if (a->job.epilogue == MATMUL_RESIDUAL) {
        float *x = (float *)a->job.y + r * a->job.ldy + first, gate = a->job.gate ? a->job.gate[r] : 1.0f;
        for (int j = 0; j < columns; j++)
            x[j] += gate * v[j];
        return;
    }
    if (a->job.epilogue == MATMUL_SWIGLU) {
        columns /= 2;
        first /= 2;
        for (int j = 0; j < columns; j++)
            v[j] = portable_silu(v[j]) * v[columns + j];
    }
    void *y = act_at_mut(a->job.y, a->job.y_type, r * a->job.ldy + first);
    if (a->job.y_type == DTYPE_F32)
        store_row(y, DTYPE_F32, v, columns);
    else
        store_row(y, DTYPE_BF16, v, columns);
}

static void multiply_tile(const struct matmul *a, int p, int t, int thread)
{
    const struct kern_matrix *w = a->job.w;
    int columns = matrix_panel_columns(w, p), first = t * w->tile, m = min_int(w->tile, a->n - first);
    float *out = a->c->matmul->out[thread];
    const void *x = t < a->gather0 ? act_at(a->job.x, a->job.x_type, (size_t)(a->row0 + first) * a->job.ldx)
                                   : act_at(a->c->matmul->x, w->x_type, (size_t)first * w->k);
    w->ops->multiply(a->c, w, p, x, m, out, thread);
    for (int i = 0; i < m; i++) {
        float *v = out + (size_t)i * columns;
        for (int j = 0; j < columns; j++)
            v[j] += w->bias ? w->bias[p * w->panel + j] : 0.0f;
        finish_row(a, rows_at(&a->job.rows, a->row0 + first + i), p, columns, v);
    }
}

/* Tasks of one panel follow each other, so that threads share the panel in the outer cache. */
static void run_task(void *arg, int task, int thread)
{
    const struct matmul *a = arg;
    int group = task % a->groups, end = (group + 1) * a->n_tiles / a->groups;
    for (int t = group * a->n_tiles / a->groups; t < end; t++)
        multiply_tile(a, task / a->groups, t, thread);
}

static void run_block(struct matmul *a)
{
    const struct kern_matrix *w = a->job.w;
    bool in_place = !a->job.rows.idx && a->job.ldx == w->k && a->job.x_type == w->x_type;
    a->n_tiles = (a->n + w->tile - 1) / w->tile;
    a->gather0 = in_place ? a->n / w->tile : 0;
    parallel_for(a->c->pool, a->n_tiles - a->gather0, gather_tile, a);
    a->groups = min_int(a->n_tiles, (4 * a->c->n_threads + w->n_panels - 1) / w->n_panels);
    parallel_for(a->c->pool, w->n_panels * a->groups, run_task, a);
}

static int run(struct kern_ctx *k, struct matmul_job job)
{
    struct matmul a = {.c = cpu_of(k), .job = job};
    int count = rows_count(job.rows);
    if (!count)
        return 0;
    if (job.w->ops->run) {
        job.w->ops->run(a.c, &job);
        return 0;
    }
    for (a.row0 = 0; a.row0 < count; a.row0 += MATMUL_BLOCK_ROWS) {
        a.n = min_int(MATMUL_BLOCK_ROWS, count - a.row0);
        run_block(&a);
    }
    return 0;
}

static int matmul_c(struct kern_ctx *k, struct dev_act *y, int col, int ldy, const struct dev_act *x, int ldx, const struct kern_matrix *w,
                    struct rows n)
{
    assert(w->kind == MATRIX_LINEAR || w->kind == MATRIX_EMBED);
    return run(k, (struct matmul_job){.w = w,
                                      .x = act_of(x),
                                      .x_type = k->act,
                                      .ldx = ldx,
                                      .epilogue = MATMUL_STORE,
                                      .y = act_at_mut(act_of(y), k->act, col),
                                      .y_type = k->act,
                                      .ldy = ldy,
                                      .rows = n});
}

static int matmul_f32_c(struct kern_ctx *k, struct dev_f32 *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    assert(w->kind == MATRIX_LINEAR || w->kind == MATRIX_EMBED);
    return run(k, (struct matmul_job){.w = w,
                                      .x = act_of(x),
                                      .x_type = k->act,
                                      .ldx = w->k,
                                      .epilogue = MATMUL_STORE,
                                      .y = f32_of(y),
                                      .y_type = DTYPE_F32,
                                      .ldy = w->n,
                                      .rows = n});
}

static int matmul_residual_c(struct kern_ctx *k, struct dev_f32 *x, const struct dev_act *a, int lda, const struct kern_matrix *w,
                             const struct dev_f32 *gate, struct rows n)
{
    assert(w->kind == MATRIX_LINEAR);
    return run(k, (struct matmul_job){.w = w,
                                      .x = act_of(a),
                                      .x_type = k->act,
                                      .ldx = lda,
                                      .epilogue = MATMUL_RESIDUAL,
                                      .y = f32_of(x),
                                      .y_type = DTYPE_F32,
                                      .ldy = w->n,
                                      .gate = f32_of(gate),
                                      .rows = n});
}

static int matmul_swiglu_c(struct kern_ctx *k, struct dev_act *y, const struct dev_act *x, const struct kern_matrix *w, struct rows n)
{
    assert(w->kind == MATRIX_GATE_UP);
    return run(k, (struct matmul_job){.w = w,
                                      .x = act_of(x),
                                      .x_type = k->act,
                                      .ldx = w->k,
                                      .epilogue = MATMUL_SWIGLU,
                                      .y = act_of(y),
                                      .y_type = k->act,
                                      .ldy = w->n / 2,
                                      .rows = n});
}

static int matmul_accurate_c(struct kern_ctx *k, struct dev_f32 *y, const struct dev_f32 *x, const struct kern_matrix *w, struct rows n)
{
    assert(w->kind == MATRIX_ACCURATE);
    return run(k, (struct matmul_job){.w = w,
                                      .x = f32_of(x),
                                      .x_type = DTYPE_F32,
                                      .ldx = w->k,
                                      .epilogue = MATMUL_STORE,
                                      .y = f32_of(y),
                                      .y_type = DTYPE_F32,
                                      .ldy = w->n,
                                      .rows = n});
}

static int matmul_blend_c(struct kern_ctx *k, struct dev_f32 *x, struct dev_f32 *y, const struct dev_act *a, int lda,
                          const struct kern_matrix *w, const struct dev_f32 *gate, enum blend_mode mode, struct rows n)
{
    int r = matmul_residual_c(k, y, a, lda, w, NULL, (struct rows){NULL, n.n_dev, n.n_max});
    return r < 0 ? r : k->ops->blend(k, x, y, gate, mode, w->n, n);
}

void matmul_init(struct kern_ops *o)
{
    o->matmul = matmul_c;
    o->matmul_f32 = matmul_f32_c;
    o->matmul_residual = matmul_residual_c;
    o->matmul_blend = matmul_blend_c;
    o->matmul_swiglu = matmul_swiglu_c;
    o->matmul_accurate = matmul_accurate_c;
}

/* ---- scratch ---------------------------------------------------------------------------------------------------- */

/* A larger buffer in place of *p; contents are lost. */
static int grow(void **p, size_t *have, size_t bytes)
{
    if (bytes <= *have)
        return 0;
    bytes = (bytes + 63) / 64 * 64;
    void *fresh = aligned_alloc(64, bytes);
    if (!fresh)
        return ERR_NOMEM;
    free(*p);
    *p = fresh;
    *have = bytes;
    return 0;
}

int cpu_matmul_reserve(struct cpu *c, const struct kern_matrix *w)
{
    struct cpu_matmul *m = c->matmul;
    size_t out_bytes = w->out_scratch ? w->out_scratch : sizeof(float) * w->tile * w->panel;
    size_t x_bytes = w->x_scratch ? w->x_scratch : (size_t)MATMUL_BLOCK_ROWS * w->k * dtype_size(w->x_type);
    assert(MATMUL_BLOCK_ROWS % w->tile == 0);
    int r = grow(&m->x, &m->x_bytes, x_bytes);
    for (int t = 0; t < c->n_threads && r >= 0; t++)
        r = grow((void **)&m->out[t], &m->out_bytes[t], out_bytes);
    return r;
}

int cpu_matmul_reserve_as(struct cpu *c, const struct cpu_matmul *other)
{
    struct cpu_matmul *m = c->matmul;
    int r = grow(&m->x, &m->x_bytes, other->x_bytes);
    for (int t = 0; t < c->n_threads && r >= 0; t++)
        r = grow((void **)&m->out[t], &m->out_bytes[t], other->out_bytes[t]);
    return r;
}

int cpu_matmul_new(struct cpu *c)
{
    size_t shares = sizeof(struct matmul_share) * (size_t)c->n_threads;
    c->matmul = calloc(1, sizeof(*c->matmul));
    if (!c->matmul || !(c->matmul->shares = aligned_alloc(alignof(struct matmul_share), shares)))
        return ERR_NOMEM;
    memset(c->matmul->shares, 0, shares);
    return 0;
}

void cpu_matmul_free(struct cpu *c)
{
    if (!c->matmul)
        return;
    free(c->matmul->x);
    free(c->matmul->shares);
    weight_memory_drop(c->matmul->weights);
    for (int t = 0; t < c->n_threads; t++)
        free(c->matmul->out[t]);
    free(c->matmul);
}
