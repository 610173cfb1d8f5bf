/* Attention by warp matrix products: devices before Hopper, and after. Persistent blocks share out the pieces of work (a query tile and a KV head).
 * Each warp holds its packed rows' queries, scores and sums; all threads bring the next key block in while the present one is worked on.
 *
 * Shape of the computation: FlashAttention-2, arXiv 2307.08691, algorithm 1; the packed rows of a head group: attention.cuh. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"
#include <math_constants.h>

/* HD: head size rounded up to a shape of the kernel; MT: a warp's tiles of 16 packed rows; BN: keys of a block. Tiles in shared memory are panels of
 * 64 columns, 128 bytes a row, chunk c of row r at chunk c ^ (r % 8). */
template <int HD, int MT, int BN> struct mma_attention_shape {
    enum {
        WARPS = 4,
        THREADS = 32 * WARPS,
        WARP_ROWS = 16 * MT,
        ROWS = WARPS * WARP_ROWS,
        CHUNKS = HD / 8,
        PANELS = (HD + 63) / 64,
        Q_BYTES = PANELS * ROWS * 128,
        TILE_BYTES = PANELS * BN * 128,
        SMEM_BYTES = Q_BYTES + 4 * TILE_BYTES, /* K and V, two blocks each */
        Q_IN_REGISTERS = HD <= 64,
        BLOCKS = HD <= 128 ? 2 : 1
    };
};

struct mma_attention_args {
    struct attention_args a;
    struct attention_tiles tiles;
};

template <int ROWS> __device__ __forceinline__ int tile_at(int row, int chunk)
{
    return chunk / 8 * ROWS * 128 + row * 128 + (chunk % 8 ^ row % 8) * 16;
}

/* The step row of packed row p of a tile, or -1. */
__device__ __forceinline__ int packed_row(const struct attention_args &a, const struct attention_tile &t, int p)
{
    return p < t.rows ? a.sel[t.start + (t.first + p) / (a.h / a.hk)] : -1;
}

template <typename T, typename S>
__device__ __forceinline__ void feed_queries(const struct attention_args &a, const struct attention_tile &t, int kv_head, uint32_t q)
{
    int group = a.h / a.hk;
    for (int i = threadIdx.x; i < S::ROWS * S::CHUNKS; i += S::THREADS) {
        int p = i / S::CHUNKS, chunk = i % S::CHUNKS, r = packed_row(a, t, p), head = kv_head * group + (t.first + p) % group;
        bool valid = r >= 0 && chunk * 8 < a.hd;
        copy16(q + tile_at<S::ROWS>(p, chunk), (const T *)a.qkv + (valid ? ((size_t)r * (a.h + 2 * a.hk) + head) * a.hd + chunk * 8 : 0),
               valid);
    }
}

/* The slots of a block's keys, one or two a lane: read a block ahead. */
template <int BN> struct key_slots {
    int s[BN / 32];
    __device__ __forceinline__ void read(const int *slots, int n_keys, int j0)
    {
#pragma unroll
        for (int i = 0; i < BN / 32; i++) {
            int j = j0 + i * 32 + threadIdx.x % 32;
            s[i] = j < n_keys ? slots[j] : -1;
        }
    }
    __device__ __forceinline__ int at(int row) const /* -1: no such key */
    {
        int slot = __shfl_sync(~0u, s[0], row % 32);
        if (BN == 64) {
            int second = __shfl_sync(~0u, s[BN / 32 - 1], row % 32);
            slot = row < 32 ? slot : second;
        }
        return slot;
    }
};

/* A block's K and V of one head; zeros where there is no key, since 0 x NaN is NaN. */
template <typename T, int HD, int MT, int BN>
__device__ __forceinline__ void feed_keys(const struct attention_args &a, const struct key_slots<BN> &slots, int kv_head, uint32_t k,
                                          uint32_t v)
{
    typedef mma_attention_shape<HD, MT, BN> S;
    const T *base = (const T *)a.kv + (size_t)kv_head * a.hd;
    size_t v_off = (size_t)a.hk * a.hd, ld = 2 * v_off;
    static_assert(BN * S::CHUNKS % S::THREADS == 0);
#pragma unroll
    for (int n = 0; n < BN * S::CHUNKS / S::THREADS; n++) {
        int i = n * S::THREADS + threadIdx.x, row = i / S::CHUNKS, chunk = i % S::CHUNKS, slot = slots.at(row);
        bool valid = slot >= 0 && chunk * 8 < a.hd;
        const T *src = base + (valid ? slot * ld + chunk * 8 : 0);
        copy16(k + tile_at<BN>(row, chunk), src, valid);
        copy16(v + tile_at<BN>(row, chunk), src + v_off, valid);
    }
}

/* A thread's packed rows of one tile of 16: lane/4 and lane/4 + 8. */
struct row_state {
    int row[2], visible[2]; /* row of `out` in heads, or -1; keys it sees */
    float max[2], sum[2];

    __device__ __forceinline__ void load(const struct attention_args &a, const struct attention_tile &t, int kv_head, int first)
    {
        int group = a.h / a.hk;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int p = first + threadIdx.x % 32 / 4 + h * 8, r = packed_row(a, t, p);
            row[h] = r < 0 ? -1 : r * a.h + kv_head * group + (t.first + p) % group;
            visible[h] = r < 0 ? 0 : a.visible[r];
            max[h] = -CUDART_INF_F;
            sum[h] = 0;
        }
    }

    /* s (scores of keys j0..) becomes exp2 of scaled scores less the row's maximum; keep: what earlier sums must be multiplied with. */
    template <int BN> __device__ __forceinline__ void softmax(float (&s)[BN / 2], int j0, float scale_log2, float keep[2])
    {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            if (j0 + BN > visible[h])
#pragma unroll
                for (int i = 0; i < BN / 4; i++)
                    if (j0 + i / 2 * 8 + lane % 4 * 2 + i % 2 >= visible[h])
                        s[i / 2 * 4 + h * 2 + i % 2] = -CUDART_INF_F;
            float top = max[h];
#pragma unroll
            for (int i = 0; i < BN / 4; i++)
                top = fmaxf(top, s[i / 2 * 4 + h * 2 + i % 2]);
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float shift = top == -CUDART_INF_F ? 0 : top * scale_log2, add = 0;
            keep[h] = top == max[h]
                          ? 1
                          : exp2_fast(fmaf(max[h], scale_log2, -shift)); /* shift is rounded: without a new maximum this must be 1 */
            max[h] = top;
#pragma unroll
            for (int i = 0; i < BN / 4; i++) {
                float &x = s[i / 2 * 4 + h * 2 + i % 2];
                x = exp2_fast(fmaf(x, scale_log2, -shift));
                add += x;
            }
            sum[h] = fmaf(sum[h], keep[h], add);
        }
    }

    template <typename T, int O> __device__ __forceinline__ void store(const struct attention_args &a, const float (&o)[O]) const
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            if (row[h] < 0)
                continue;
            float inverse = __fdividef(1.0f, total);
            T *out = (T *)a.out + (size_t)row[h] * a.hd;
#pragma unroll
            for (int i = 0; i < O / 4; i++) {
                int c = i * 8 + threadIdx.x % 4 * 2;
                if (c < a.hd)
                    *(uint32_t *)(out + c) = pack2<T>(o[i * 4 + h * 2] * inverse, o[i * 4 + h * 2 + 1] * inverse);
            }
        }
    }
};

/* A warp's queries as operands: held, or loaded again for each block where registers are short. */
template <int HD, int MT, int BN> struct warp_queries {
    typedef mma_attention_shape<HD, MT, BN> S;
    uint32_t held[S::Q_IN_REGISTERS ? HD / 16 : 1][MT][4], q;
    __device__ __forceinline__ void fetch(uint32_t (&to)[MT][4], int step) const
    {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < MT; i++)
            ldmatrix(to[i], q + tile_at<S::ROWS>(threadIdx.x / 32 * S::WARP_ROWS + i * 16 + lane % 16, step * 2 + lane / 16));
    }
    __device__ __forceinline__ void load(uint32_t tile)
    {
        q = tile;
        if constexpr (S::Q_IN_REGISTERS)
#pragma unroll
            for (int step = 0; step < HD / 16; step++)
                fetch(held[step], step);
    }
    __device__ __forceinline__ void get(uint32_t (&to)[MT][4], int step) const
    {
        if constexpr (!S::Q_IN_REGISTERS)
            fetch(to, step);
        else
#pragma unroll
            for (int i = 0; i < MT * 4; i++)
                to[i / 4][i % 4] = held[step][i / 4][i % 4];
    }
};

template <typename T, int HD, int MT, int BN>
__device__ __forceinline__ void multiply_keys(float (&s)[MT][BN / 2], const struct warp_queries<HD, MT, BN> &q, uint32_t k)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < MT * BN / 2; i++)
        s[i / (BN / 2)][i % (BN / 2)] = 0;
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t a[MT][4];
        q.get(a, step);
#pragma unroll
        for (int j = 0; j < BN / 16; j++) {
            uint32_t b[4];
            ldmatrix(b, k + tile_at<BN>(j * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2));
#pragma unroll
            for (int i = 0; i < MT; i++) {
                mma<T>(&s[i][j * 8], a[i], b[0], b[1]);
                mma<T>(&s[i][j * 8 + 4], a[i], b[2], b[3]);
            }
        }
    }
}

/* o += weights times values; scores of 16 keys are just the operand's order. */
template <typename T, int HD, int MT, int BN>
__device__ __forceinline__ void multiply_values(float (&o)[MT][HD / 2], const float (&s)[MT][BN / 2], uint32_t v)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int step = 0; step < BN / 16; step++) {
        uint32_t p[MT][4];
#pragma unroll
        for (int i = 0; i < MT * 4; i++)
            p[i / 4][i % 4] = pack2<T>(s[i / 4][step * 8 + i % 4 * 2], s[i / 4][step * 8 + i % 4 * 2 + 1]);
#pragma unroll
        for (int j = 0; j < HD / 16; j++) {
            uint32_t b[4];
            ldmatrix_transposed(b, v + tile_at<BN>(step * 16 + lane % 16, j * 2 + lane / 16));
#pragma unroll
            for (int i = 0; i < MT; i++) {
                mma<T>(&o[i][j * 8], p[i], b[0], b[1]);
                mma<T>(&o[i][j * 8 + 4], p[i], b[2], b[3]);
            }
        }
    }
}

/* One key block for one warp. */
template <typename T, int HD, int MT, int BN>
__device__ __forceinline__ void attend(float (&o)[MT][HD / 2], struct row_state (&rows)[MT], const struct warp_queries<HD, MT, BN> &q,
                                       uint32_t k, uint32_t v, int j0, float scale_log2)
{
    float s[MT][BN / 2];
    multiply_keys<T, HD, MT, BN>(s, q, k);
#pragma unroll
    for (int i = 0; i < MT; i++) {
        float keep[2];
        rows[i].template softmax<BN>(s[i], j0, scale_log2, keep);
        if (!__all_sync(~0u, keep[0] == 1 && keep[1] == 1)) /* most blocks bring no new maximum */
#pragma unroll
            for (int c = 0; c < HD / 2; c++)
                o[i][c] *= keep[c / 2 % 2];
    }
    multiply_values<T, HD, MT, BN>(o, s, v);
}

template <typename T, int HD, int MT, int BN>
__device__ __forceinline__ void attend_piece(const struct attention_args &a, const struct attention_tile &t, int kv_head, uint32_t q_tile)
{
    typedef mma_attention_shape<HD, MT, BN> S;
    const int *table = t.slots(a);
    uint32_t k = q_tile + S::Q_BYTES, v = k + 2 * S::TILE_BYTES;
    int warp_rows = threadIdx.x / 32 * S::WARP_ROWS, seen = 0; /* keys that any row of the warp sees */
    struct key_slots<BN> slots;
    struct row_state rows[MT];
    struct warp_queries<HD, MT, BN> q;
    float o[MT][HD / 2] = {};
    slots.read(table, t.n_keys, 0);
    feed_queries<T, S>(a, t, kv_head, q_tile);
    feed_keys<T, HD, MT, BN>(a, slots, kv_head, k, v);
    copy_commit();
    slots.read(table, t.n_keys, BN);
#pragma unroll
    for (int i = 0; i < MT; i++) {
        rows[i].load(a, t, kv_head, warp_rows + i * 16);
        seen = max(seen, max(rows[i].visible[0], rows[i].visible[1]));
    }
    seen = __reduce_max_sync(~0u, seen);
    for (int j0 = 0, stage = 0; j0 < t.n_keys; j0 += BN, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); /* the block has come, and everyone is done with the one before it */
        if (j0 == 0)
            q.load(q_tile);
        if (j0 + BN < t.n_keys) {
            feed_keys<T, HD, MT, BN>(a, slots, kv_head, k + (stage ^ 1) * S::TILE_BYTES, v + (stage ^ 1) * S::TILE_BYTES);
            slots.read(table, t.n_keys, j0 + 2 * BN);
        }
        copy_commit();
        if (j0 < seen)
            attend<T, HD, MT, BN>(o, rows, q, k + stage * S::TILE_BYTES, v + stage * S::TILE_BYTES, j0, a.scale * 1.4426950408889634f);
    }
#pragma unroll
    for (int i = 0; i < MT; i++)
        rows[i].template store<T>(a, o[i]);
}

template <typename T, int HD, int MT, int BN>
__global__ void __launch_bounds__(mma_attention_shape<HD, MT, BN>::THREADS, mma_attention_shape<HD, MT, BN>::BLOCKS)
    attention_mma_pieces(const __grid_constant__ struct mma_attention_args p)
{
    extern __shared__ __align__(1024) char smem[];
    __shared__ int next;
    int total = *p.tiles.count * p.a.hk;
    for (int number = blockIdx.x; number < total;) {
        attend_piece<T, HD, MT, BN>(p.a, p.tiles.tile[number / p.a.hk], number % p.a.hk, smem_address(smem));
        if (threadIdx.x == 0)
            next = gridDim.x + atomicAdd(p.tiles.taken, 1);
        __syncthreads(); /* also: the piece's tiles are free */
        number = next;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        attention_end_block(p.tiles);
}

template <typename T, int HD, int MT, int BN> static int start(struct cuda_ctx *c, const struct attention_args *a)
{
    typedef mma_attention_shape<HD, MT, BN> S;
    auto kernel = attention_mma_pieces<T, HD, MT, BN>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    struct mma_attention_args p = {*a};
    r = attention_list_tiles(c, a, S::ROWS, &p.tiles);
    if (r < 0)
        return r;
    kernel<<<S::BLOCKS * c->n_sm, S::THREADS, S::SMEM_BYTES, c->stream>>>(p);
    return launched(&c->k, "attention_mma");
}

template <typename T> static int choose(struct cuda_ctx *c, const struct attention_args *a)
{
    if (a->hd <= 64)
        return start<T, 64, 2, 64>(c, a);
    if (a->hd <= 96)
        return start<T, 96, 2, 32>(c, a);
    if (a->hd <= 128)
        return start<T, 128, 2, 32>(c, a);
    return start<T, 256, 1, 32>(c, a);
}

int attention_mma(struct cuda_ctx *c, const struct attention_args *a)
{
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, a) : choose<__half>(c, a);
}
