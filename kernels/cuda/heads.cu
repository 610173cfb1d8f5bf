/* Norms of single heads, the cast that stands for a norm, and the linear path's copy of value heads. */
#include "kernels/cuda/lanes.cuh"

enum { WARPS = 8, THREADS = 128 };

/* A warp a head, four neighbouring elements a lane: hp is at most 256. */
struct head_norm_args {
    const float *w;
    int ldx, heads, hp, hd;
    float eps;
    struct rows n;
};

template <typename T> __global__ void head_norm_rows(T *x, struct head_norm_args a)
{
    chain_enter();
    int head = blockIdx.x * WARPS + threadIdx.y, i = head / a.heads;
    if (i >= rows_count(a.n))
        return;
    T *p = x + (size_t)row_at(a.n, i) * a.ldx + head % a.heads * a.hp;
    float v[2][4] = {}, sum = 0;
    for (int c = 0; c < 2; c++) {
        int j = (c * 32 + threadIdx.x) * 4;
        if (j < a.hp)
            load4(v[c], p + j);
        for (int e = 0; e < 4; e++)
            sum = fmaf(v[c][e], v[c][e], sum);
    }
    float scale = 1.0f / sqrtf(warp_sum(sum) / (float)a.hd + a.eps);
    for (int c = 0; c < 2; c++) {
        int j = (c * 32 + threadIdx.x) * 4;
        if (j >= a.hp)
            break;
        for (int e = 0; e < 4; e++)
            v[c][e] = v[c][e] * scale * a.w[j + e];
        store4(p + j, v[c]);
    }
}

/* In f32: 16 threads a head, the lanes of the class portable-1. */
__global__ static void head_norm_f32(float *x, struct head_norm_args a)
{
    chain_enter();
    int head = (blockIdx.x * WARPS + threadIdx.y) * 2 + threadIdx.x / LANES, i = head / a.heads;
    float *p = i < rows_count(a.n) ? x + (size_t)row_at(a.n, i) * a.ldx + head % a.heads * a.hp : NULL;
    float scale = lanes_rms_scale(p, a.hp, a.hd, a.eps);
    for (int j = threadIdx.x % LANES; p && j < a.hp; j += LANES)
        p[j] = p[j] * scale * a.w[j];
}

static int head_norm_cuda(struct kern_ctx *k, struct dev_act *x, int col, int ldx, int heads, int hp, int hd, const struct dev_f32 *w,
                          struct rows n, float eps)
{
    if (n.n_max == 0 || heads == 0)
        return 0;
    struct head_norm_args a = {f32_of(w), ldx, heads, hp, hd, eps, n};
    unsigned blocks = (unsigned)(((size_t)n.n_max * heads + WARPS - 1) / WARPS);
    if (k->act == DTYPE_F32) {
        chain_launch(ctx_of(k), head_norm_f32, (blocks + 1) / 2, dim3(32, WARPS), 0, (float *)act_of(x) + col, a);
        return launched(k, "head_norm");
    }
    return with_type(k->act, [&](auto t) {
        chain_launch(ctx_of(k), head_norm_rows<decltype(t)>, blocks, dim3(32, WARPS), 0, (decltype(t) *)act_of(x) + col, a);
        return launched(k, "head_norm");
    });
}

template <typename T> __global__ void cast_row(T *y, const float *x, struct rows n, int d)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    size_t row = (size_t)row_at(n, blockIdx.x) * d;
    for (int j = threadIdx.x; j < d; j += THREADS)
        y[row + j] = from_f32<T>(x[row + j]);
}

static int cast_rows_cuda(struct kern_ctx *k, struct dev_act *y, const struct dev_f32 *x, struct rows n, int d)
{
    if (n.n_max == 0)
        return 0;
    return with_type(k->act, [&](auto t) {
        chain_launch(ctx_of(k), cast_row<decltype(t)>, n.n_max, THREADS, 0, (decltype(t) *)act_of(y), f32_of(x), n, d);
        return launched(k, "cast_rows");
    });
}

/* Four neighbouring elements a thread. */
template <typename T> __global__ void spread_row(T *out, const T *qkv, int h, int hk, int hd, struct rows n)
{
    chain_enter();
    if (blockIdx.x >= rows_count(n))
        return;
    size_t r = row_at(n, blockIdx.x);
    const T *v = qkv + (r * (h + 2 * hk) + h + hk) * hd;
    for (int j = threadIdx.x * 4; j < h * hd; j += THREADS * 4)
        *(vec4<T> *)(out + r * h * hd + j) = *(const vec4<T> *)(v + j / hd / (h / hk) * hd + j % hd);
}

static int spread_values_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                              struct rows n)
{
    if (n.n_max == 0)
        return 0;
    return with_type(k->act, [&](auto t) {
        typedef decltype(t) T;
        chain_launch(ctx_of(k), spread_row<T>, n.n_max, THREADS, 0, (T *)act_of(out), (const T *)act_of(qkv), hs->h, hs->hk, hs->hd, n);
        return launched(k, "spread_values");
    });
}

void heads_cuda_init(struct kern_ops *o)
{
    o->head_norm = head_norm_cuda;
    o->cast_rows = cast_rows_cuda;
    o->spread_values = spread_values_cuda;
}
