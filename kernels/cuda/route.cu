/* Routing decisions: one warp a row. A decision hangs on one sum, so it is taken in double, as on the CPU. */
#include "kernels/cuda/route.cuh"

enum { ROWS_A_BLOCK = 4 };

__device__ __forceinline__ double warp_sum_double(double v)
{
    for (int d = 16; d; d >>= 1)
        v += __shfl_xor_sync(~0u, v, d);
    return v;
}

/* z0 - z1 of z = w h + b, h = silu(hid * scale * norm_w); norm_w NULL: ones. */
__device__ static double two_way_silu(const float *hid, float scale, const float *norm_w, const float *w, const float *b, int m)
{
    double z = 0;
    for (int j = threadIdx.x; j < m; j += 32) {
        float h = silu(norm_w ? hid[j] * scale * norm_w[j] : hid[j]);
        z += (double)h * w[j] - (double)h * w[m + j];
    }
    return warp_sum_double(z) + ((double)b[0] - b[1]);
}

__global__ static void route_mlp_rows(struct decisions to, const float *hid, const float *w2, const float *b2, int m, struct rows n)
{
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    double z = two_way_silu(hid + (size_t)r * m, 1, NULL, w2, b2, m);
    if (threadIdx.x)
        return;
    decide_margin(to, r, z);
}

__global__ static void route_mod_rows(struct decisions to, const float *x, const float *w, const float *b, int d, struct rows n)
{
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    double za = 0, zg = 0;
    for (int j = threadIdx.x; j < d; j += 32) {
        double v = x[(size_t)r * d + j];
        za += v * w[j];
        zg += v * w[d + j];
    }
    za = warp_sum_double(za) + b[0];
    zg = warp_sum_double(zg) + b[1];
    if (threadIdx.x)
        return;
    float p = sigmoid_double(za);
    to.prob[r] = p;
    to.route[r] = p > 0.5f ? to.above : to.below;
    to.gate[r] = sigmoid_double(zg);
}

/* f32 [m], [2,m], [2] */
struct dllm_args {
    const float *norm_w, *w2, *b2;
    float eps;
    int m, forced;
};

__global__ static void route_dllm_rows(struct decisions to, struct dllm_args p, const float *hid, const int *pos, struct rows n)
{
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    const float *h = hid + (size_t)r * p.m;
    double squares = 0;
    for (int j = threadIdx.x; j < p.m; j += 32)
        squares += (double)h[j] * h[j];
    float scale = (float)(1.0 / sqrt(warp_sum_double(squares) / p.m + p.eps));
    double z = two_way_silu(h, scale, p.norm_w, p.w2, p.b2, p.m);
    if (threadIdx.x)
        return;
    float p1 = sigmoid_double(-z);
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
        int gathered = n.idx ? matmul_gather(c, &in, w1->k, sizeof(float), n) : 0;
        return gathered < 0 ? gathered : route_mlp_sm90(c, &in, w1, n, end);
    }
    int r = k->ops->matmul_accurate(k, p->hid, x, w1, n);
    if (r < 0)
        return r;
    route_mlp_rows<<<grid_of(n), block, 0, c->stream>>>(decisions_of(to), f32_of(p->hid), f32_of(p->w2), f32_of(p->b2), p->m, n);
    return launched(k, "route_mlp");
}

static int route_mod_cuda(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *x, const struct dev_f32 *w,
                          const struct dev_f32 *b, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    route_mod_rows<<<grid_of(n), block, 0, ctx_of(k)->stream>>>(decisions_of(to), f32_of(x), f32_of(w), f32_of(b), d, n);
    return launched(k, "route_mod");
}

static int route_dllm_cuda(struct kern_ctx *k, const struct route_out *to, const struct route_dllm *p, const struct dev_f32 *hid,
                           const struct dev_i32 *pos, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    struct dllm_args a = {f32_of(p->norm_w), f32_of(p->w2), f32_of(p->b2), p->eps, p->m, p->forced};
    route_dllm_rows<<<grid_of(n), block, 0, ctx_of(k)->stream>>>(decisions_of(to), a, f32_of(hid), i32_of(pos), n);
    return launched(k, "route_dllm");
}

void route_cuda_init(struct kern_ops *o)
{
    o->route_mlp = route_mlp_cuda;
    o->route_mod = route_mod_cuda;
    o->route_dllm = route_dllm_cuda;
}
