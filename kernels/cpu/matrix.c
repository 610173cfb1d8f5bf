/* Making matrices: the choice of who packs one, conversion of the stored values, the check that they are finite, embedding rows. */
#include "kernels/cpu/matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/weight_memory.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

/* In order of preference; the last accepts everything. */
static const struct cpu_matrix_ops *const candidates[] = {
#if defined(__x86_64__)
    &matrix_ops_panel,
#endif
    &matrix_ops_scalar};
enum { N_CANDIDATES = sizeof(candidates) / sizeof(*candidates) };

int matrix_ops_find(const char *name, const struct cpu_matrix_ops **ret, struct err *err)
{
    *ret = NULL;
    if (!name)
        return 0;
    for (int i = 0; i < N_CANDIDATES; i++)
        if (!strcmp(name, candidates[i]->name)) {
            *ret = candidates[i];
            return 0;
        }
    return err_field(err, ERR_INVALID, "cpu_matmul", "cpu_matmul must be panel or scalar, not \"%.32s\"", name);
}

struct packer {
    struct kern_matrix *w;
    const struct matrix_part *parts;
    atomic_int bad_row; /* a row with a value that is not finite, or -1 */
};

static bool all_finite(const void *p, enum dtype type, int n)
{
    int bad = 0;
    if (type == DTYPE_F32)
        for (int i = 0; i < n; i++)
            bad |= (((const uint32_t *)p)[i] & 0x7f800000) == 0x7f800000;
    else
        for (int i = 0; i < n; i++)
            bad |= (((const uint16_t *)p)[i] & 0x7f80) == 0x7f80;
    return !bad;
}

/* Values `at`.. of a part, n of them, as `type`: where they lie, or in `room`. */
static const void *read_source(const struct matrix_part *part, size_t at, int n, enum dtype type, float room[MATRIX_PACK_INPUTS])
{
    float values[MATRIX_PACK_INPUTS], stored[MATRIX_PACK_INPUTS];
    const void *src = part->data ? act_at(part->data, part->type, at) : stored;
    if (!part->data) {
        random_fill(&part->random, at, values, n);
        dtype_from_f32(stored, part->type, values, n);
    }
    if (part->data && part->type == type)
        return src;
    dtype_to_f32(values, src, part->type, n);
    dtype_from_f32(room, type, values, n);
    return room;
}

static void pack_column(struct packer *a, int p, int c, int first)
{
    struct kern_matrix *w = a->w;
    const struct matrix_part *part = a->parts;
    float room[MATRIX_PACK_INPUTS];
    int row = matrix_source_row(w, p, c), at = row, n = min_int(MATRIX_PACK_INPUTS, w->k - first);
    while (at >= part->n)
        at -= part++->n;
    const void *values = read_source(part, (size_t)at * w->k + first, n, w->weight_type, room);
    if (!all_finite(values, w->weight_type, n))
        a->bad_row = row;
    w->ops->pack(w, p, c, first, n, values);
}

static void pack_panel(void *arg, int p, int thread)
{
    struct packer *a = arg;
    for (int first = 0; first < a->w->k; first += MATRIX_PACK_INPUTS)
        for (int c = 0; c < matrix_panel_columns(a->w, p); c++)
            pack_column(a, p, c, first);
}

static int pack_weights(struct cpu *c, struct kern_matrix *w, const struct matrix_part *parts, struct err *err)
{
    struct packer a = {.w = w, .parts = parts, .bad_row = -1};
    parallel_for(c->pool, w->n_panels, pack_panel, &a);
    return a.bad_row < 0 ? 0
                         : err_set(err, ERR_CORRUPT, "row %d of a %d x %d matrix holds a value that is not finite in %s", a.bad_row, w->n,
                                   w->k, dtype_name(w->weight_type));
}

static int pack_bias(struct kern_matrix *w, const struct matrix_part *parts, int n_parts, struct err *err)
{
    bool any = false;
    for (int i = 0; i < n_parts; i++)
        any |= parts[i].bias != NULL;
    if (!any)
        return 0;
    float *plain = calloc(w->n, sizeof(float));
    w->bias = malloc(w->n * sizeof(float));
    if (!plain || !w->bias) {
        free(plain);
        return err_set(err, ERR_NOMEM, "out of memory for a bias of %d values", w->n);
    }
    for (int i = 0, at = 0; i < n_parts; at += parts[i++].n)
        if (parts[i].bias)
            dtype_to_f32(plain + at, parts[i].bias, parts[i].bias_type, parts[i].n);
    for (int p = 0; p < w->n_panels; p++)
        for (int j = 0; j < matrix_panel_columns(w, p); j++)
            w->bias[p * w->panel + j] = plain[matrix_source_row(w, p, j)] + 0.0f; /* no -0: a sum of 0 is +0 with padding and without */
    free(plain);
    return all_finite(w->bias, DTYPE_F32, w->n) ? 0 : err_set(err, ERR_CORRUPT, "a bias of %d values holds one that is not finite", w->n);
}

static bool all_bf16(const struct matrix_part *parts, int n_parts)
{
    for (int i = 0; i < n_parts; i++)
        if (parts[i].type != DTYPE_BF16)
            return false;
    return true;
}

/* The type that holds the values: the compute dtype, or for MATRIX_ACCURATE one that loses nothing of what is stored. Where panels take
 * every matrix, bf16 holds what was stored as bf16 in f32 mode too. */
static enum dtype weight_type(const struct cpu *c, enum matrix_kind kind, const struct matrix_part *parts, int n_parts)
{
    bool f32 = c->base.act == DTYPE_F32, bf16 = all_bf16(parts, n_parts);
    if (c->level >= CPU_AVX2 && bf16)
        return DTYPE_BF16;
    return kind == MATRIX_ACCURATE && !bf16 ? DTYPE_F32 : f32 ? DTYPE_F32 : DTYPE_BF16;
}

static int plan(struct cpu *c, struct kern_matrix *w, struct err *err)
{
    for (int i = 0; i < N_CANDIDATES; i++) {
        if (c->only && c->only != candidates[i])
            continue;
        w->ops = candidates[i];
        int r = w->ops->plan(c, w);
        if (r == ERR_UNSUPPORTED)
            continue;
        if (r < 0)
            return err_set(err, r, "%s refused a %d x %d matrix", w->ops->name, w->n, w->k);
        w->n_panels = (w->n + w->panel - 1) / w->panel;
        w->packed = weight_memory_take(&c->matmul->weights, w->packed_bytes, &w->block);
        if (!w->packed || cpu_matmul_reserve(c, w) < 0)
            return err_set(err, ERR_NOMEM, "out of memory for a %d x %d matrix", w->n, w->k);
        return 0;
    }
    return err_set(err, ERR_UNSUPPORTED, "no way to multiply by a %d x %d matrix", w->n, w->k);
}

static void matrix_free(struct kern_ctx *k, struct kern_matrix *w)
{
    if (!w)
        return;
    weight_memory_drop(w->block);
    free(w->bias);
    free(w);
}

static int matrix_new(struct kern_ctx *k, enum matrix_kind kind, const struct matrix_part *parts, int n_parts, int cols,
                      struct kern_matrix **ret, struct err *err)
{
    assert(n_parts > 0 && cols > 0 && (kind != MATRIX_GATE_UP || (n_parts == 2 && parts[0].n == parts[1].n)));
    struct kern_matrix *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(err, ERR_NOMEM, "out of memory for a matrix");
    w->kind = kind;
    w->k = cols;
    w->weight_type = weight_type(cpu_of(k), kind, parts, n_parts);
    for (int i = 0; i < n_parts; i++)
        w->n += parts[i].n;
    int r = plan(cpu_of(k), w, err);
    if (r >= 0)
        r = pack_weights(cpu_of(k), w, parts, err);
    if (r >= 0)
        r = pack_bias(w, parts, n_parts, err);
    if (r < 0) {
        matrix_free(k, w);
        return r;
    }
    *ret = w;
    return 0;
}

static size_t matrix_bytes(const struct kern_matrix *w)
{
    return w->packed_bytes + (w->bias ? w->n * sizeof(float) : 0);
}

struct embed {
    float *x;
    const struct kern_matrix *table;
    const int *ids, *latest;
};

static void embed_row(void *arg, int r)
{
    const struct embed *a = arg;
    const struct kern_matrix *w = a->table;
    int id = a->ids[r] < 0 ? a->latest[-1 - a->ids[r]] : a->ids[r];
    if (a->ids[r] < 0 && (id < 0 || id >= w->n))
        id = 0;
    w->ops->read_column(w, id / w->panel, id % w->panel, a->x + (size_t)r * w->k);
}

static int embed_c(struct kern_ctx *k, struct dev_f32 *x, const struct kern_matrix *table, const struct dev_i32 *ids,
                   const struct dev_i32 *latest, struct rows n)
{
    struct embed a = {f32_of(x), table, i32_of(ids), i32_of(latest)};
    assert(table->kind == MATRIX_EMBED);
    cpu_for_rows(k, n, 4 * table->k, embed_row, &a);
    return 0;
}

void matrix_init(struct kern_ops *o)
{
    o->matrix_new = matrix_new;
    o->matrix_free = matrix_free;
    o->matrix_bytes = matrix_bytes;
    o->embed = embed_c;
}
