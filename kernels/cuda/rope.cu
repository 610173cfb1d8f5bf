/* Rotates q in place, and rotated K and V into their KV slots. Four neighbouring elements of both halves of a head a thread. */
#include "kernels/cuda/rope.cuh"

enum { THREADS = 128 };

struct rope_args {
    const float *cos, *sin; /* [max_pos, hd/2] */
    const int *pos, *slot;
    struct rows q_rows, all;
    int h, hk, hd;
};

/* dst[j..j+3] and dst[j+hd/2..] from src; dst may be src. */
template <typename T> __device__ __forceinline__ void rotate4(T *dst, const T *src, const float *cos, const float *sin, int half)
{
    float lo[4], hi[4];
    rotated4(lo, hi, src, cos, sin, half);
    store4(dst, lo);
    store4(dst + half, hi);
}

template <typename T> __device__ __forceinline__ void rotate_q(const struct rope_args &a, T *qkv, int r)
{
    int half = a.hd / 2, quads = half / 4;
    T *q = qkv + (size_t)r * (a.h + 2 * a.hk) * a.hd;
    size_t at = (size_t)a.pos[r] * half;
    for (int i = threadIdx.x; i < a.h * quads; i += THREADS) {
        T *p = q + i / quads * a.hd + i % quads * 4;
        rotate4(p, p, a.cos + at + i % quads * 4, a.sin + at + i % quads * 4, half);
    }
}

template <typename T> __device__ __forceinline__ void store_kv(const struct rope_args &a, const T *qkv, T *kv, int r)
{
    if (a.slot[r] < 0)
        return;
    int half = a.hd / 2, quads = half / 4, width = a.hk * a.hd;
    const T *src = qkv + ((size_t)r * (a.h + 2 * a.hk) + a.h) * a.hd;
    T *dst = kv + (size_t)a.slot[r] * 2 * width;
    size_t at = (size_t)a.pos[r] * half;
    for (int i = threadIdx.x; i < a.hk * quads; i += THREADS) {
        int j = i / quads * a.hd + i % quads * 4;
        rotate4(dst + j, src + j, a.cos + at + i % quads * 4, a.sin + at + i % quads * 4, half);
    }
    for (int j = threadIdx.x * 4; j < width; j += THREADS * 4)
        *(vec4<T> *)(dst + width + j) = *(const vec4<T> *)(src + width + j);
}

/* A block a row, or FEW: what blocks are resident share the rows, as starting a block for each would cost more than the work of the few that have any. */
template <typename T, bool FEW> __global__ void rope_rows(struct rope_args a, T *qkv, T *kv)
{
    chain_enter();
    int i = blockIdx.x, n = blockIdx.y == 0 ? rows_count(a.q_rows) : rows_count(a.all);
    do {
        if (i >= n)
            return;
        if (blockIdx.y == 0)
            rotate_q(a, qkv, row_at(a.q_rows, i));
        else
            store_kv(a, qkv, kv, i);
        i += gridDim.x;
    } while (FEW);
}

static int rope_store_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *qkv, const struct dev_f32 *cos,
                           const struct dev_f32 *sin, const struct kern_step *s, const struct dev_i32 *slot, struct rows q_rows)
{
    int n = s->all.n_max > q_rows.n_max ? s->all.n_max : q_rows.n_max, resident = 16 * ctx_of(k)->n_sm;
    bool few = q_rows.n_dev && n > resident;
    if (n == 0)
        return 0;
    struct rope_args a = {f32_of(cos), f32_of(sin), i32_of(s->pos), i32_of(slot), q_rows, s->all, hs->h, hs->hk, hs->hd};
    return with_type(k->act, [&](auto t) {
        typedef decltype(t) T;
        auto kernel = few ? rope_rows<T, true> : rope_rows<T, false>;
        chain_launch(ctx_of(k), kernel, dim3(few ? resident : n, 2), THREADS, 0, a, (T *)act_of(qkv), (T *)act_of(hs->kv));
        return launched(k, "rope_store");
    });
}

void rope_cuda_init(struct kern_ops *o)
{
    o->rope_store = rope_store_cuda;
}
