/* Routing decisions: scalar form. A row's decision hangs on few sums, so these are taken in double. */
#include "kernels/cpu/route.h"
#include "kernels/cpu/ops.h"

struct route {
    struct decisions to;
    const float *x, *w, *b, *norm_w;
    float eps;
    int m, forced;
    const int *pos;
    struct rows set; /* of packed rows */
};

enum { CHUNK = 256 };

/* z0 - z1 of z = w h + b, w [2,m], h = silu(hid * scale * norm_w), in chunks so that no row is held whole. norm_w NULL: ones. */
static double two_way_silu(const struct route *a, const float *hid, float scale)
{
    double z = (double)a->b[0] - a->b[1];
    float h[CHUNK];
    for (int i = 0; i < a->m; i += CHUNK) {
        int n = a->m - i < CHUNK ? a->m - i : CHUNK;
        if (a->norm_w)
            for (int j = 0; j < n; j++)
                h[j] = portable_silu(hid[i + j] * scale * a->norm_w[i + j]);
        else
            for (int j = 0; j < n; j++)
                h[j] = portable_silu(hid[i + j]);
        z += dot_double(h, a->w + i, n) - dot_double(h, a->w + a->m + i, n);
    }
    return z;
}

static void mlp_row(void *arg, int r)
{
    const struct route *a = arg;
    route_decide(&a->to, r, two_way_silu(a, a->x + (size_t)r * a->m, 1));
}

static void packed_mlp_row(void *arg, int i)
{
    const struct route *a = arg;
    route_decide(&a->to, rows_at(&a->set, i), two_way_silu(a, a->x + (size_t)i * a->m, 1));
}

static int route_mlp_c(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x, struct rows n)
{
    struct rows in_x = p->packed ? (struct rows){NULL, n.n_dev, n.n_max} : n;
    int r = k->ops->matmul_accurate(k, p->hid, x, p->w1, in_x);
    if (r < 0)
        return r;
    struct route a = {.to = decisions_of(to), .set = n};
    a.x = f32_of(p->hid);
    a.w = f32_of(p->w2);
    a.b = f32_of(p->b2);
    a.m = p->m;
    cpu_for_rows(k, in_x, 16 * a.m, p->packed ? packed_mlp_row : mlp_row, &a);
    return 0;
}

static void mod_row(void *arg, int r)
{
    const struct route *a = arg;
    const float *x = a->x + (size_t)r * a->m;
    a->to.prob[r] = portable_sigmoid(dot_double(x, a->w, a->m) + a->b[0]);
    a->to.gate[r] = portable_sigmoid(dot_double(x, a->w + a->m, a->m) + a->b[1]);
    a->to.route[r] = a->to.code[a->to.prob[r] > 0.5f];
}

static int route_mod_c(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *x, const struct dev_f32 *w,
                       const struct dev_f32 *b, int d, struct rows n)
{
    struct route a = {.to = decisions_of(to)};
    a.x = f32_of(x);
    a.w = f32_of(w);
    a.b = f32_of(b);
    a.m = d;
    cpu_for_rows(k, n, 4 * d, mod_row, &a);
    return 0;
}

static void dllm_row(void *arg, int r)
{
    const struct route *a = arg;
    const float *hid = a->x + (size_t)r * a->m;
    a->to.prob[r] = portable_sigmoid(-two_way_silu(a, hid, rms_scale_c(hid, a->m, a->eps)));
    a->to.route[r] = a->to.code[a->to.prob[r] >= 0.5f || a->pos[r] < a->forced];
}

static int route_dllm_c(struct kern_ctx *k, const struct route_out *to, const struct route_dllm *p, const struct dev_f32 *hid,
                        const struct dev_i32 *pos, struct rows n)
{
    struct route a = {.to = decisions_of(to)};
    a.x = f32_of(hid);
    a.w = f32_of(p->w2);
    a.b = f32_of(p->b2);
    a.norm_w = f32_of(p->norm_w);
    a.eps = p->eps;
    a.m = p->m;
    a.forced = p->forced;
    a.pos = i32_of(pos);
    cpu_for_rows(k, n, 16 * a.m, dllm_row, &a);
    return 0;
}

void CPU_NAME(route_init)(struct kern_ops *o)
{
    o->route_mlp = route_mlp_c;
    o->route_mod = route_mod_c;
    o->route_dllm = route_dllm_c;
}
