/* Routing decisions: one warp a row. A decision hangs on one sum, so it is taken in double, in the order of the class portable-1 in every dtype. */
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/route.cuh"

enum { ROWS_A_BLOCK = 4, CHUNK = 256, PARTS = 4 };

/* sum_i a[i] b[i] in 8 lanes, of which this thread is one, and their tree. */
__device__ __forceinline__ double dot_lanes(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = threadIdx.x % 8; i < n; i += 8)
        sum += (double)a[i] * b[i];
    return lanes8_tree(sum);
}

/* The same of two rows of weights at once, for h = silu(hid * scale * norm_w): the first less the second. */
__device__ __forceinline__ double chunk_margin(const float *hid, float scale, const float *norm_w, const float *w0, const float *w1, int n)
{
    double z0 = 0, z1 = 0;
    for (int i = threadIdx.x % 8; i < n; i += 8) {
        float h = portable_silu(norm_w ? hid[i] * scale * norm_w[i] : hid[i]);
        z0 += (double)h * w0[i];
        z1 += (double)h * w1[i];
    }
    z0 = lanes8_tree(z0);
    return z0 - lanes8_tree(z1);
}

/* z0 - z1 of z = w h + b, h = silu(hid * scale * norm_w); norm_w NULL: ones. Chunks of 256 are taken four at a time and added in order. */
__device__ static double two_way_silu(const float *hid, float scale, const float *norm_w, const float *w, const float *b, int m)
{
    double z = (double)b[0] - b[1];
    for (int first = 0; first < m; first += PARTS * CHUNK) {
        int at = first + threadIdx.x / 8 * CHUNK, n = min(CHUNK, m - at);
        double part = chunk_margin(hid + at, scale, norm_w ? norm_w + at : NULL, w + at, w + m + at, n);
        for (int p = 0; p < PARTS; p++) {
            double of_chunk = __shfl_sync(~0u, part, p * 8);
            z = first + p * CHUNK < m ? z + of_chunk : z;
        }
    }
    return z;
}

__global__ static void route_mlp_rows(struct decisions to, const float *hid, const float *w2, const float *b2, int m, bool packed,
                                      struct rows n)
{
    chain_enter();
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    double z = two_way_silu(hid + (size_t)(packed ? i : r) * m, 1, NULL, w2, b2, m);
    if (threadIdx.x)
        return;
    decide_margin(to, r, z);
}

__global__ static void route_mod_rows(struct decisions to, const float *x, const float *w, const float *b, int d, struct rows n)
{
    chain_enter();
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i), which = threadIdx.x / 8 % 2; /* 0: the auxiliary router, 1: the router */
    double z = dot_lanes(x + (size_t)r * d, w + (size_t)which * d, d), gate = __shfl_sync(~0u, z, 8) + b[1];
    if (threadIdx.x)
        return;
    float p = portable_sigmoid(z + b[0]);
    to.prob[r] = p;
    to.route[r] = p > 0.5f ? to.above : to.below;
    to.gate[r] = portable_sigmoid(gate);
}

/* f32 [m], [2,m], [2] */
struct dllm_args {
    const float *norm_w, *w2, *b2;
    float eps;
    int m, forced;
};

__global__ static void route_dllm_rows(struct decisions to, struct dllm_args p, const float *hid, const int *pos, struct rows n)
{
    chain_enter();
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    const float *h = hid + (size_t)r * p.m;
    double z = two_way_silu(h, lanes_rms_scale(h, p.m, p.m, p.eps), p.norm_w, p.w2, p.b2, p.m);
    if (threadIdx.x)
        return;
    float p1 = portable_sigmoid(-z);
    to.prob[r] = p1;
    to.route[r] = p1 >= 0.5f || pos[r] < p.forced ? to.above : to.below;
}

static dim3 grid_of(struct rows n)
{
    return dim3(div_up(n.n_max, ROWS_A_BLOCK));
}
static const dim3 block(32, ROWS_A_BLOCK);

static int route_mlp_cuda(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x, struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    const struct kern_matrix *w1 = p->w1;
    if (n.n_max == 0)
        return 0;
    if (k->act != DTYPE_F32 && c->level == CUDA_WGMMA && tensor_map_fits(f32_of(x), (size_t)w1->k * sizeof(float))) {
        struct matmul_in in = {f32_of(x), w1->k};
        struct router_end end = {decisions_of(to), f32_of(p->w2), f32_of(p->b2)};
        int gathered = n.idx && !p->packed ? matmul_gather(c, &in, w1->k, sizeof(float), n) : 0;
        return gathered < 0 ? gathered : route_mlp_sm90(c, &in, w1, n, end);
    }
    int r = k->ops->matmul_accurate(k, p->hid, x, w1, p->packed ? rows{NULL, n.n_dev, n.n_max} : n);
    if (r < 0)
        return r;
    chain_launch(c, route_mlp_rows, grid_of(n), block, 0, decisions_of(to), f32_of(p->hid), f32_of(p->w2), f32_of(p->b2), p->m, p->packed,
                 n);
    return launched(k, "route_mlp");
}

static int route_mlp_place_cuda(struct kern_ctx *k, const struct route_out *to, const struct route_mlp *p, const struct dev_f32 *x,
                                const struct kern_step *s, int layer, bool keep_all, const struct dev_i32 *base,
                                const struct dev_i32 *reserved, const struct kern_place *place)
{
    struct cuda_ctx *c = ctx_of(k);
    const struct kern_matrix *w1 = p->w1;
    if (k->act == DTYPE_F32 || c->level != CUDA_WGMMA || s->all.n_max == 0 || s->all.n_max > KERN_ROUTE_PLACE_ROWS || s->all.idx ||
        s->all.n_dev || place->packed.pos || !tensor_map_fits(f32_of(x), (size_t)w1->k * sizeof(float)))
        return 0;
    struct matmul_in in = {f32_of(x), w1->k};
    struct router_end end = {decisions_of(to), f32_of(p->w2), f32_of(p->b2)};
    struct place_args a = place_args_of(s, layer, base, reserved, place);
    a.route = u8_of(to->route);
    a.keep_all = keep_all;
    return route_mlp_place_sm90(c, &in, w1, s->all, end, &a);
}

static int route_mod_cuda(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *x, const struct dev_f32 *w,
                          const struct dev_f32 *b, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    chain_launch(ctx_of(k), route_mod_rows, grid_of(n), block, 0, decisions_of(to), f32_of(x), f32_of(w), f32_of(b), d, n);
    return launched(k, "route_mod");
}

static int route_dllm_cuda(struct kern_ctx *k, const struct route_out *to, const struct route_dllm *p, const struct dev_f32 *hid,
                           const struct dev_i32 *pos, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    struct dllm_args a = {f32_of(p->norm_w), f32_of(p->w2), f32_of(p->b2), p->eps, p->m, p->forced};
    chain_launch(ctx_of(k), route_dllm_rows, grid_of(n), block, 0, decisions_of(to), a, f32_of(hid), i32_of(pos), n);
    return launched(k, "route_dllm");
}

void route_cuda_init(struct kern_ops *o)
{
    o->route_mlp = route_mlp_cuda;
    o->route_mlp_place = route_mlp_place_cuda;
    o->route_mod = route_mod_cuda;
    o->route_dllm = route_dllm_cuda;
}
