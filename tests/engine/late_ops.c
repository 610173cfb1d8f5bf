/* See late_ops.h. */
#include "tests/engine/late_ops.h"
#include "kernels/backend.h"
#include "kernels/dev_ptr.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may run at the same time runs in the other order. */
static int beside_late(struct kern_ctx *k, int (*one)(void *arg), int (*other)(void *arg), void *arg)
{
    int r = other(arg);
    return r < 0 ? r : one(arg);
}

static int route_mlp_place_late(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                                const struct kern_step *s, int layer, bool keep_all, const struct dev_i32 *base,
                                const struct dev_i32 *reserved, const struct kern_place *place)
{
    if (s->all.n_max % 3 == 0)
        return 0;
    int r = k->ops->route_mlp(k, to, p, x, s->all);
    if (r >= 0)
        r = k->ops->place(k, s, layer, to->route, keep_all, base, reserved, place);
    return r < 0 ? r : 1;
}

static int place_layers_late(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                             const struct dev_i32 *reserved, int n_append, const struct kern_place *to, size_t stride)
{
    int r = 0;
    for (int i = 0; i < n && r >= 0; i++) {
        size_t l = (size_t)layers[i], at = l * stride;
        struct kern_place lists = {.sel = dev_i32_at(to->sel, at),
                                   .sel_n = dev_i32_at(to->sel_n, at),
                                   .exec = dev_i32_at(to->exec, at),
                                   .exec_n = dev_i32_at(to->exec_n, at),
                                   .run_start = dev_i32_at(to->run_start, at),
                                   .visible = dev_i32_at(to->visible, at),
                                   .slot = dev_i32_at(to->slot, at)};
        r = k->ops->place(k, s, layers[i], NULL, false, dev_i32_at(base, l * (size_t)s->n_runs), dev_i32_at(reserved, l * (size_t)n_append),
                          &lists);
    }
    return r < 0 ? r : 1;
}

/* Of q alone qkv keeps what it should; k and v are the pool's. */
static int matmul_rope_store_late(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_act *xn,
                                  const struct kern_matrix *w, int d, const struct dev_f32 *cos, const struct dev_f32 *sin,
                                  const struct kern_step *s, const struct dev_i32 *slot)
{
    if (s->all.n_max % 3 == 0)
        return 0;
    int width = (hs->h + 2 * hs->hk) * hs->hd, r = k->ops->matmul(k, qkv, 0, width, xn, d, w, s->all);
    if (r >= 0)
        r = k->ops->rope_store(k, hs, qkv, cos, sin, s, slot, s->all);
    size_t size = dtype_size(k->act), row = (size_t)width * size, q = (size_t)(hs->h * hs->hd) * size;
    for (int i = 0; i < s->all.n_max && r >= 0; i++)
        memset((char *)bytes_of(DEV_BYTES(qkv)) + (size_t)i * row + q, 0xff, row - q);
    return r < 0 ? r : 1;
}

/* A context's ops, and the lists that its attention was last called with. */
struct late_ops {
    struct kern_ops ops; /* first */
    int (*attention)(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                     const struct kern_step *s, int layer, const struct kern_place *p, float scale);
    int n, *lists; /* [n] */
};

/* sel, visible of its rows, run_start; for the caller to free. */
static int *lists_of(const struct kern_step *s, const struct kern_place *p, int *ret_n)
{
    int n_sel = *i32_of(p->sel_n), *all = malloc(sizeof(int) * (2 * (size_t)n_sel + (size_t)s->n_runs + 1));
    if (!all)
        abort();
    for (int i = 0; i < n_sel; i++) {
        all[2 * i] = i32_of(p->sel)[i];
        all[2 * i + 1] = i32_of(p->visible)[all[2 * i]];
    }
    memcpy(all + 2 * n_sel, i32_of(p->run_start), sizeof(int) * ((size_t)s->n_runs + 1));
    *ret_n = 2 * n_sel + s->n_runs + 1;
    return all;
}

/* "again" must be true. */
static int attention_late(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                          const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    struct late_ops *late = (struct late_ops *)k->ops;
    int n, *lists = lists_of(s, p, &n);
    if (p->again && (n != late->n || memcmp(lists, late->lists, sizeof(int) * (size_t)n))) {
        fprintf(stderr, "attention of layer %d is told that its lists are those of the layer before, and they are not\n", layer);
        abort();
    }
    free(late->lists);
    late->lists = lists;
    late->n = n;
    return late->attention(k, hs, out, qkv, s, layer, p, scale);
}

const struct kern_ops *late_ops_new(const struct kern_ops *cpu)
{
    struct late_ops *late = malloc(sizeof(*late));
    if (!late)
        abort();
    *late = (struct late_ops){.ops = *cpu, .attention = cpu->attention};
    late->ops.beside = beside_late;
    late->ops.route_mlp_place = route_mlp_place_late;
    late->ops.place_layers = place_layers_late;
    late->ops.matmul_rope_store = matmul_rope_store_late;
    late->ops.attention = attention_late;
    return &late->ops;
}

void late_ops_free(const struct kern_ops *ops)
{
    struct late_ops *late = (struct late_ops *)ops;
    if (late)
        free(late->lists);
    free(late);
}
