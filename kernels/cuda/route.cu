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

__global__ static void route_dtrnet_rows(unsigned char *route, float *gate, float *prob, const float *hid, const float *w2, const float *b2,
                                         int m, struct rows n)
{
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    double z = two_way_silu(hid + (size_t)r * m, 1, NULL, w2, b2, m);
    if (threadIdx.x)
        return;
    decide_dtrnet(route, gate, prob, r, z);
}

__global__ static void route_mod_rows(unsigned char *route, float *gate, float *prob, const float *x, const float *w, const float *b, int d,
                                      struct rows n)
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
    prob[r] = sigmoid_double(za);
    route[r] = prob[r] > 0.5f;
    gate[r] = sigmoid_double(zg);
}

__global__ static void route_dllm_rows(unsigned char *route, float *prob, const float *hid, const float *norm_w, float eps, const float *w2,
                                       const float *b2, int m, const int *pos, int forced, struct rows n)
{
    int i = blockIdx.x * ROWS_A_BLOCK + threadIdx.y;
    if (i >= rows_count(n))
        return;
    int r = row_at(n, i);
    const float *h = hid + (size_t)r * m;
    double squares = 0;
    for (int j = threadIdx.x; j < m; j += 32)
        squares += (double)h[j] * h[j];
    float scale = (float)(1.0 / sqrt(warp_sum_double(squares) / m + eps));
    double z = two_way_silu(h, scale, norm_w, w2, b2, m);
    if (threadIdx.x)
        return;
    prob[r] = sigmoid_double(-z);
    route[r] = prob[r] >= 0.5f || pos[r] < forced;
}

static dim3 grid_of(struct rows n)
{
    return dim3(div_up(n.n_max, ROWS_A_BLOCK));
}
static const dim3 block(32, ROWS_A_BLOCK);

static int route_dtrnet_cuda(struct kern_ctx *k, unsigned char *route, float *gate, float *prob, float *hid, const float *x,
                             const struct kern_matrix *w1, const float *w2, const float *b2, int m, struct rows n)
{
    struct cuda_ctx *c = ctx_of(k);
    if (n.n_max == 0)
        return 0;
    if (k->act != DTYPE_F32 && c->level == CUDA_WGMMA && tensor_map_fits(x, (size_t)w1->k * sizeof(*x))) {
        struct matmul_in in = {x, w1->k};
        struct router_end end = {route, gate, prob, w2, b2};
        int gathered = n.idx ? matmul_gather(c, &in, w1->k, sizeof(*x), n) : 0;
        return gathered < 0 ? gathered : route_dtrnet_sm90(c, &in, w1, n, end);
    }
    int r = k->ops->matmul_accurate(k, hid, x, w1, n);
    if (r < 0)
        return r;
    route_dtrnet_rows<<<grid_of(n), block, 0, c->stream>>>(route, gate, prob, hid, w2, b2, m, n);
    return launched(k, "route_dtrnet");
}

static int route_mod_cuda(struct kern_ctx *k, unsigned char *route, float *gate, float *prob, const float *x, const float *w,
                          const float *b, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    route_mod_rows<<<grid_of(n), block, 0, ctx_of(k)->stream>>>(route, gate, prob, x, w, b, d, n);
    return launched(k, "route_mod");
}

static int route_dllm_cuda(struct kern_ctx *k, unsigned char *route, float *prob, const float *hid, const float *norm_w, float eps,
                           const float *w2, const float *b2, int m, const int *pos, int forced, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    route_dllm_rows<<<grid_of(n), block, 0, ctx_of(k)->stream>>>(route, prob, hid, norm_w, eps, w2, b2, m, pos, forced, n);
    return launched(k, "route_dllm");
}

void route_cuda_init(struct kern_ops *o)
{
    o->route_dtrnet = route_dtrnet_cuda;
    o->route_mod = route_mod_cuda;
    o->route_dllm = route_dllm_cuda;
}
