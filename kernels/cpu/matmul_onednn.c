/* Matrix products through oneDNN (version 2 C interface).
 *
 * oneDNN picks its algorithm by all three sizes, so results change with the number of rows. Here every product is one of a fixed shape:
 * TILE rows by one panel, run by one thread. What remains to be relied upon - that a row of the tile is computed alike wherever it lies
 * and whatever the other rows hold - is checked bitwise when a shape is first made; a shape that fails is declined
 * (with AVX2 alone nearly all do).
 *
 * A shape is made once and shared by all panels of its size. Weights are packed in the layout that the primitive prefers; such layouts
 * are blocks of blocks, so the place of element (i of k, j of columns) is k_off[i] + n_off[j], which lets embed read single rows.
 * On a CPU without bf16 instructions bf16 weights are packed as f32. */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>
#include "kernels/cpu/matrix.h"

enum { TILE = 32, PANEL = 256 };

struct thread_memory {
    dnnl_memory_t x, out, scratch;
};

struct shape {
    struct shape *next;
    int columns, k;
    enum dtype type;               /* of x and the packed weights */
    dnnl_primitive_t matmul, reorder;
    dnnl_memory_desc_t x_md, plain_md, packed_md, out_md, scratch_md;
    size_t packed_bytes;           /* rounded up to 64 */
    size_t *k_off, *n_off;         /* [k], [columns] in elements */
    bool invariant;
    struct thread_memory *threads; /* [n_threads] */
};

struct onednn {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct shape *shapes;
};

/* A planned matrix: one shape for full panels, one for the last, and a memory object a panel. */
struct matrix_state {
    const struct shape *full, *last;
    dnnl_memory_t *panels;         /* [n_panels], NULL until packed */
};

static dnnl_data_type_t data_type(enum dtype t) { return t == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32; }

static int code(dnnl_status_t s)
{
    return s == dnnl_success ? 0 : s == dnnl_out_of_memory ? ERR_NOMEM : s == dnnl_unimplemented ? ERR_UNSUPPORTED : ERR_INTERNAL;
}

/* ---- shapes ----------------------------------------------------------------------------------------------------- */

static int describe(struct shape *s)
{
    dnnl_dims_t x = {TILE, s->k}, w = {s->k, s->columns}, out = {TILE, s->columns}, by_column = {1, s->k};
    dnnl_status_t st = dnnl_memory_desc_init_by_tag(&s->x_md, 2, x, data_type(s->type), dnnl_ab);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_strides(&s->plain_md, 2, w, data_type(s->type), by_column);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&s->packed_md, 2, w, data_type(s->type), dnnl_format_tag_any);
    if (st == dnnl_success)
        st = dnnl_memory_desc_init_by_tag(&s->out_md, 2, out, dnnl_f32, dnnl_ab);
    return code(st);
}

static dnnl_status_t make_matmul(struct shape *s, dnnl_engine_t engine)
{
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t st = dnnl_matmul_desc_init(&desc, &s->x_md, &s->packed_md, NULL, &s->out_md);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_create(&attr);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&pd, &desc, attr, engine, NULL);
    if (st == dnnl_success) {
        s->packed_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
        s->scratch_md = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        st = dnnl_primitive_create(&s->matmul, pd);
    }
    dnnl_primitive_desc_destroy(pd);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

static dnnl_status_t make_reorder(struct shape *s, dnnl_engine_t engine)
{
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t st = dnnl_reorder_primitive_desc_create(&pd, &s->plain_md, engine, &s->packed_md, engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&s->reorder, pd);
    dnnl_primitive_desc_destroy(pd);
    return st;
}

static dnnl_status_t make_thread_memory(struct shape *s, struct thread_memory *t, dnnl_engine_t engine)
{
    dnnl_status_t st = dnnl_memory_create(&t->x, &s->x_md, engine, DNNL_MEMORY_NONE);
    if (st == dnnl_success)
        st = dnnl_memory_create(&t->out, &s->out_md, engine, DNNL_MEMORY_NONE);
    if (st == dnnl_success)
        st = dnnl_memory_create(&t->scratch, &s->scratch_md, engine, DNNL_MEMORY_ALLOCATE);
    return st;
}

/* Offsets of coordinate i of dimension `dim` in a blocked layout: the outer block's stride, then its digits in the inner blocks. */
static size_t *block_offsets(const dnnl_memory_desc_t *md, int dim, int n)
{
    const dnnl_blocking_desc_t *b = &md->format_desc.blocking;
    size_t *off = malloc(sizeof(*off) * n);
    for (int i = 0; off && i < n; i++) {
        size_t rest = i, stride = 1;
        off[i] = 0;
        for (int j = b->inner_nblks - 1; j >= 0; j--) {
            if (b->inner_idxs[j] == dim) {
                off[i] += rest % b->inner_blks[j] * stride;
                rest /= b->inner_blks[j];
            }
            stride *= b->inner_blks[j];
        }
        off[i] += rest * b->strides[dim];
    }
    return off;
}

static void multiply_shape(const struct onednn *o, const struct shape *s, dnnl_memory_t weights, const void *x, float *out, int thread)
{
    const struct thread_memory *t = &s->threads[thread];
    dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, t->x}, {DNNL_ARG_WEIGHTS, weights}, {DNNL_ARG_DST, t->out}, {DNNL_ARG_SCRATCHPAD, t->scratch}};
    omp_set_num_threads(1); /* of this thread: oneDNN must not start its own */
    dnnl_memory_set_data_handle(t->x, (void *)x);
    dnnl_memory_set_data_handle(t->out, out);
    dnnl_status_t st = dnnl_primitive_execute(s->matmul, o->stream, 4, args);
    assert(st == dnnl_success);
    (void)st;
}

static void shape_free(struct shape *s, int n_threads)
{
    for (int t = 0; s->threads && t < n_threads; t++) {
        dnnl_memory_destroy(s->threads[t].x);
        dnnl_memory_destroy(s->threads[t].out);
        dnnl_memory_destroy(s->threads[t].scratch);
    }
    dnnl_primitive_destroy(s->matmul);
    dnnl_primitive_destroy(s->reorder);
    free(s->threads);
    free(s->k_off);
    free(s->n_off);
    free(s);
}

/* ---- the check of a shape --------------------------------------------------------------------------------------- */

static float noise(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (float)(int)(*seed >> 16) / 65536.0f - 0.5f;
}

struct probe {
    float *row;      /* [k] the row under test */
    void *x;         /* [TILE,k] */
    char *w;         /* packed */
    float *out, *first;   /* [TILE,columns], [columns] */
    dnnl_memory_t weights;
    uint32_t seed;
};

static void probe_fill(const struct shape *s, struct probe *p)
{
    for (int i = 0; i < s->k; i++)
        p->row[i] = noise(&p->seed);
    for (int j = 0; j < s->columns; j++)
        for (int i = 0; i < s->k; i++)
            act_put(p->w, s->type, s->k_off[i] + s->n_off[j], noise(&p->seed));
}

/* Multiplies a tile whose rows r with r % 3 != other are the probe's, the others noise; true if the former all give `first`. */
static bool probe_run(const struct onednn *o, const struct shape *s, struct probe *p, int other, bool set_first)
{
    size_t columns = s->columns, k = s->k;
    for (int r = 0; r < TILE; r++)
        for (size_t i = 0; i < k; i++)
            act_put(p->x, s->type, r * k + i, r % 3 == other ? 3 * noise(&p->seed) : p->row[i]);
    multiply_shape(o, s, p->weights, p->x, p->out, 0);
    if (set_first)
        memcpy(p->first, p->out, columns * sizeof(float));
    for (int r = 0; r < TILE; r++)
        if (r % 3 != other && memcmp(p->first, p->out + r * columns, columns * sizeof(float)))
            return false;
    return true;
}

/* One column in double against what came out: the offsets name the right elements. */
static bool probe_offsets(const struct shape *s, const struct probe *p)
{
    int j = s->columns - 1;
    double want = 0, size = 0;
    for (int i = 0; i < s->k; i++) {
        double x = act_get(p->x, s->type, i), w = act_get(p->w, s->type, s->k_off[i] + s->n_off[j]);
        want += x * w;
        size += fabs(x * w);
    }
    return fabs(want - p->first[j]) <= 1e-5 * size;
}

static int shape_check(const struct onednn *o, struct shape *s)
{
    struct probe p = {.row = malloc(sizeof(float) * s->k), .x = aligned_alloc(64, TILE * (size_t)s->k * sizeof(float)),
                      .w = aligned_alloc(64, s->packed_bytes), .out = malloc(sizeof(float) * TILE * s->columns),
                      .first = malloc(sizeof(float) * s->columns), .seed = 1};
    int r = p.row && p.x && p.w && p.out && p.first ? 0 : ERR_NOMEM;
    if (r >= 0) {
        memset(p.w, 0, s->packed_bytes);
        r = code(dnnl_memory_create(&p.weights, &s->packed_md, o->engine, p.w));
    }
    if (r >= 0) {
        probe_fill(s, &p);
        s->invariant = probe_run(o, s, &p, -1, true) && probe_offsets(s, &p) && probe_run(o, s, &p, 0, false) &&
                       probe_run(o, s, &p, 1, false) && probe_run(o, s, &p, 2, false);
    }
    dnnl_memory_destroy(p.weights);
    free(p.row);
    free(p.x);
    free(p.w);
    free(p.out);
    free(p.first);
    return r;
}

static int shape_build(struct cpu *c, struct shape *s)
{
    struct onednn *o = c->matmul->onednn;
    int r = describe(s);
    if (r >= 0)
        r = code(make_matmul(s, o->engine));
    if (r >= 0)
        r = s->packed_md.format_kind == dnnl_blocked && !s->packed_md.extra.flags ? code(make_reorder(s, o->engine)) : ERR_UNSUPPORTED;
    if (r < 0)
        return r;
    s->packed_bytes = (dnnl_memory_desc_get_size(&s->packed_md) + 63) / 64 * 64;
    s->k_off = block_offsets(&s->packed_md, 0, s->k);
    s->n_off = block_offsets(&s->packed_md, 1, s->columns);
    s->threads = calloc(c->n_threads, sizeof(*s->threads));
    if (!s->k_off || !s->n_off || !s->threads)
        return ERR_NOMEM;
    for (int t = 0; t < c->n_threads && r >= 0; t++)
        r = code(make_thread_memory(s, &s->threads[t], o->engine));
    if (r >= 0)
        r = shape_check(o, s);
    if (r >= 0 && !s->invariant)
        log_warn(c->log, "oneDNN's %d x %d %s product depends on a row's place: not used", s->columns, s->k, dtype_name(s->type));
    return r;
}

/* The shape [TILE,k] x [k,columns], made at its first use. ERR_UNSUPPORTED if it is not to be used. */
static int shape_get(struct cpu *c, int columns, int k, enum dtype type, const struct shape **ret)
{
    struct onednn *o = c->matmul->onednn;
    struct shape *s = o->shapes;
    while (s && (s->columns != columns || s->k != k || s->type != type))
        s = s->next;
    if (!s) {
        if (!(s = calloc(1, sizeof(*s))))
            return ERR_NOMEM;
        *s = (struct shape){.columns = columns, .k = k, .type = type};
        int r = shape_build(c, s);
        if (r < 0) {
            shape_free(s, c->n_threads);
            return r;
        }
        s->next = o->shapes;
        o->shapes = s;
    }
    *ret = s;
    return s->invariant ? 0 : ERR_UNSUPPORTED;
}

/* ---- the library ------------------------------------------------------------------------------------------------ */

/* oneDNN honours one limit a process, set before its first primitive: the first context opened above `scalar` decides. */
static void limit_isa(enum cpu_level level)
{
    static const dnnl_cpu_isa_t isa[CPU_LEVEL_COUNT] = {dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2, dnnl_cpu_isa_avx512_core,
                                                        dnnl_cpu_isa_avx512_core_bf16, dnnl_cpu_isa_avx512_core_amx};
    dnnl_set_max_cpu_isa(isa[level]);
}

static int library_get(struct cpu *c)
{
    if (c->matmul->onednn)
        return 0;
    struct onednn *o = c->matmul->onednn = calloc(1, sizeof(*o));
    if (!o)
        return ERR_NOMEM;
    limit_isa(c->level);
    dnnl_status_t st = dnnl_engine_create(&o->engine, dnnl_cpu, 0);
    if (st == dnnl_success)
        st = dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags);
    return code(st);
}

void matmul_onednn_free(struct cpu *c)
{
    struct onednn *o = c->matmul->onednn;
    if (!o)
        return;
    while (o->shapes) {
        struct shape *s = o->shapes;
        o->shapes = s->next;
        shape_free(s, c->n_threads);
    }
    dnnl_stream_destroy(o->stream);
    dnnl_engine_destroy(o->engine);
    free(o);
}

const char *matmul_onednn_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof(text), "onednn-%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

/* ---- matrices --------------------------------------------------------------------------------------------------- */

static int plan(struct cpu *c, struct kern_matrix *w)
{
    if (c->level == CPU_SCALAR)
        return ERR_UNSUPPORTED;
    omp_set_num_threads(1);
    struct matrix_state *m = calloc(1, sizeof(*m));
    w->state = m;
    int r = m ? library_get(c) : ERR_NOMEM;
    bool exact = w->kind == MATRIX_ACCURATE || c->base.act == DTYPE_F32;
    w->x_type = w->weight_type == DTYPE_BF16 && c->level >= CPU_AVX512BF16 ? DTYPE_BF16 : DTYPE_F32;
    w->terms = exact && w->x_type == DTYPE_BF16 ? 3 : 1;
    w->tile = TILE;
    w->panel = PANEL;
    int n_full = w->n / PANEL, rest = w->n % PANEL;
    if (r >= 0 && n_full)
        r = shape_get(c, PANEL, w->k, w->x_type, &m->full);
    if (r >= 0 && rest)
        r = shape_get(c, rest, w->k, w->x_type, &m->last);
    if (r >= 0 && !(m->panels = calloc(n_full + 1, sizeof(*m->panels))))
        r = ERR_NOMEM;
    if (r < 0)
        return r;
    w->packed_bytes = (n_full ? m->full->packed_bytes * n_full : 0) + (rest ? m->last->packed_bytes : 0);
    return 0;
}

static const struct shape *panel_shape(const struct kern_matrix *w, int p)
{
    const struct matrix_state *m = w->state;
    return matrix_panel_columns(w, p) == PANEL ? m->full : m->last;
}

static char *panel_at(const struct kern_matrix *w, int p)
{
    const struct matrix_state *m = w->state;
    return (char *)w->packed + (p ? p * m->full->packed_bytes : 0);
}

/* src as the shape wants it: itself, or bf16 values widened into *ret_own, which the caller frees. */
static const void *widen(const struct kern_matrix *w, const struct shape *s, const void *src, float **ret_own)
{
    size_t n = (size_t)s->columns * s->k;
    *ret_own = NULL;
    if (s->type == w->weight_type)
        return src;
    *ret_own = malloc(n * sizeof(float));
    if (*ret_own)
        dtype_to_f32(*ret_own, src, w->weight_type, n);
    return *ret_own;
}

static int pack(struct cpu *c, struct kern_matrix *w, int p, const void *src, int thread)
{
    struct onednn *o = c->matmul->onednn;
    struct matrix_state *m = w->state;
    const struct shape *s = panel_shape(w, p);
    dnnl_memory_t plain = NULL;
    float *own;
    const void *values = widen(w, s, src, &own);
    omp_set_num_threads(1);
    dnnl_status_t st = values ? dnnl_memory_create(&plain, &s->plain_md, o->engine, (void *)values) : dnnl_out_of_memory;
    if (st == dnnl_success)
        st = dnnl_memory_create(&m->panels[p], &s->packed_md, o->engine, panel_at(w, p));
    if (st == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, m->panels[p]}};
        st = dnnl_primitive_execute(s->reorder, o->stream, 2, args);
    }
    dnnl_memory_destroy(plain);
    free(own);
    return code(st);
}

static void multiply(struct cpu *c, const struct kern_matrix *w, int p, const void *x, size_t term_stride, int m, float *out, int thread)
{
    const struct matrix_state *state = w->state;
    const struct shape *s = panel_shape(w, p);
    size_t n = (size_t)m * s->columns;
    float *sum = out + (size_t)TILE * PANEL; /* the second half of a thread's buffer */
    multiply_shape(c->matmul->onednn, s, state->panels[p], act_at(x, s->type, (w->terms - 1) * term_stride), out, thread);
    for (int t = w->terms - 2; t >= 0; t--) { /* smallest terms first */
        multiply_shape(c->matmul->onednn, s, state->panels[p], act_at(x, s->type, t * term_stride), sum, thread);
        for (size_t i = 0; i < n; i++)
            out[i] += sum[i];
    }
}

static void read_column(const struct kern_matrix *w, int p, int c, float *dst)
{
    const struct shape *s = panel_shape(w, p);
    const char *panel = panel_at(w, p);
    for (int i = 0; i < w->k; i++)
        dst[i] = act_get(panel, s->type, s->k_off[i] + s->n_off[c]);
}

static void done(struct kern_matrix *w)
{
    struct matrix_state *m = w->state;
    for (int p = 0; m && m->panels && p < w->n_panels; p++)
        dnnl_memory_destroy(m->panels[p]);
    if (m)
        free(m->panels);
    free(m);
}

const struct cpu_matrix_ops matrix_ops_onednn = {
    .name = "onednn", .plan = plan, .pack = pack, .multiply = multiply, .read_column = read_column, .done = done,
};
