/* Log-softmax of a row of logits: target, best tokens, non-finite check. One block a row.
 *
 * lse = max + log(sum exp(logit - max)), summed as the class portable-1 says, in every dtype. The best tokens come one by one: each is the largest
 * (logit, smaller id first) that comes after the one before. */
#include "kernels/cuda/lanes.cuh"
#include <math_constants.h>

enum { THREADS = 512, WARPS = THREADS / 32, CHUNK = 1024 };

struct best {
    float v;
    int id;
};

/* Does a come before b: larger, or equal with the smaller id? */
__device__ __forceinline__ bool before(struct best a, struct best b)
{
    return a.v > b.v || (a.v == b.v && a.id < b.id);
}

/* The first of all threads; every thread gets it. */
__device__ static struct best block_first(struct best m)
{
    __shared__ struct best warp[WARPS];
    for (int d = 16; d; d >>= 1) {
        struct best o = {__shfl_xor_sync(~0u, m.v, d), __shfl_xor_sync(~0u, m.id, d)};
        if (before(o, m))
            m = o;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = m;
    __syncthreads();
    m = warp[0];
    for (int w = 1; w < WARPS; w++)
        if (before(warp[w], m))
            m = warp[w];
    return m;
}

/* The first entry of x[v] that comes after `last`. */
__device__ static struct best first_after(const float *x, int v, struct best last)
{
    struct best m = {-CUDART_INF_F, v};
    for (int j = threadIdx.x; j < v; j += THREADS) {
        struct best e = {x[j], j};
        if (before(last, e) && before(e, m))
            m = e;
    }
    return block_first(m);
}

struct logprobs_args {
    const float *logits;
    size_t ld;
    int v, top_k;
    const int *target;
    float *target_lp, *top_lp;
    int *top_id;
    unsigned char *bad;
    float *lse;
};

/* max + log(sum exp(x - max)) of x[v]: a chunk of 1,024 in 16 lanes and their tree, the chunks in order in double. Every thread gets it. */
__device__ static float log_sum_exp(const float *x, int v, float max)
{
    __shared__ float chunk[THREADS / LANES];
    double sum = 0;
    int group = threadIdx.x / LANES, groups = THREADS / LANES;
    for (int first = 0; first < v; first += groups * CHUNK) {
        int begin = first + group * CHUNK, end = min(begin + CHUNK, v);
        float part = 0;
#pragma unroll 8
        for (int j = begin + threadIdx.x % LANES; j < end; j += LANES)
            part += portable_exp(x[j] - max);
        part = lanes_tree(part);
        __syncthreads(); /* the chunks of the round before have been read */
        if (threadIdx.x % LANES == 0)
            chunk[group] = part;
        __syncthreads();
        for (int g = 0; g < groups && first + g * CHUNK < v; g++)
            sum += chunk[g];
    }
    return (float)(max + portable_log_double(sum));
}

__global__ void __launch_bounds__(THREADS) logprobs_row(struct logprobs_args a)
{
    chain_enter();
    int i = blockIdx.x, bad = 0;
    const float *x = a.logits + i * a.ld;
    struct best m = {-CUDART_INF_F, a.v};
#pragma unroll 8
    for (int j = threadIdx.x; j < a.v; j += THREADS) {
        struct best e = {x[j], j};
        bad |= !(fabsf(e.v) < CUDART_INF_F);
        if (before(e, m))
            m = e;
    }
    bad = __syncthreads_or(bad);
    if (threadIdx.x == 0)
        a.bad[i] = bad != 0;
    if (bad)
        return;
    m = block_first(m);
    float lse = log_sum_exp(x, a.v, m.v);
    if (threadIdx.x == 0) {
        a.lse[i] = lse;
        a.target_lp[i] = a.target[i] < 0 ? 0 : x[a.target[i]] - lse;
    }
    for (int t = 0; t < a.top_k; t++) {
        if (t)
            m = first_after(x, a.v, m);
        if (threadIdx.x == 0) {
            a.top_id[(size_t)i * a.top_k + t] = m.id;
            a.top_lp[(size_t)i * a.top_k + t] = m.v - lse;
        }
    }
}

static int logprobs_cuda(struct kern_ctx *k, const struct kern_scores *to, int first, const struct dev_f32 *logits, size_t ld, int n, int v)
{
    if (n == 0)
        return 0;
    size_t top = (size_t)first * to->top_k;
    struct logprobs_args a = {.logits = f32_of(logits),
                              .ld = ld,
                              .v = v,
                              .top_k = to->top_k,
                              .target = i32_of(to->target) + first,
                              .target_lp = f32_of(to->target_lp) + first,
                              .top_lp = f32_of(to->top_lp) + top,
                              .top_id = i32_of(to->top_id) + top,
                              .bad = u8_of(to->bad) + first,
                              .lse = f32_of(to->lse) + first};
    chain_launch(ctx_of(k), logprobs_row, n, THREADS, 0, a);
    return launched(k, "logprobs");
}

void logprobs_cuda_init(struct kern_ops *o)
{
    o->logprobs = logprobs_cuda;
}
