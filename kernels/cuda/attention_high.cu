/* Attention in float32 by warp matrix products, for --matmul-precision high: the pieces and rows of attention_mma.cu, every operand in two f16 terms as in
 * high.cuh. Queries, keys and values are scaled row by row; a value's scale is taken back in its key's weight, before the weights of a row are scaled in turn.
 * Sums of a block of keys leave the tensor cores and are added in float32. All of a row's bits follow from the keys that it sees, whatever shares its tile. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/terms.cuh"
#include <math_constants.h>

/* HD: head size rounded up; MT: a warp's tiles of 16 packed rows; BN: keys of a block. */
template <int HD, int MT, int BN> struct high_attention_shape {
    enum {
        WARPS = 4,
        THREADS = 32 * WARPS,
        WARP_ROWS = 16 * MT,
        ROWS = WARPS * WARP_ROWS,
        KEYS = BN,
        LANES = HD / 4,          /* that hold a row, a quad each */
        Q_BYTES = ROWS * HD * 2, /* of a term */
        K_BYTES = BN * HD * 2,
        RAW_BYTES = BN * HD * 4,
        SMEM_BYTES = 2 * (Q_BYTES + 2 * K_BYTES + RAW_BYTES) + (ROWS + 2 * BN) * 4
    };
    static_assert(HD == 64 || HD == 128);
};

/* Terms lie in panels of 64 columns, 128 bytes a row, chunk c of row r at chunk c ^ (r % 8), the smaller term first. */
template <typename S> struct high_smem {
    char *q, *k, *v, *raw;     /* raw: [2][KEYS][HD] floats, keys and values as they come */
    float *q_un, *k_un, *v_un; /* take a row's scale back */
    __device__ __forceinline__ high_smem(char *base)
    {
        q = base;
        k = q + 2 * S::Q_BYTES;
        v = k + 2 * S::K_BYTES;
        raw = v + 2 * S::K_BYTES;
        q_un = (float *)(raw + 2 * S::RAW_BYTES);
        k_un = q_un + S::ROWS;
        v_un = k_un + S::KEYS;
    }
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

/* Quad `at` of row `row`, whose other quads the LANES - 1 lanes beside this one hold, as terms of ROWS rows, the larger at `bytes`. */
template <int ROWS, int LANES> __device__ __forceinline__ void split_quad(float4 v, char *terms, int bytes, int row, int at, float *unscale)
{
    float top = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))), un;
#pragma unroll
    for (int d = LANES / 2; d; d >>= 1)
        top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    float scale = half_scale(top, &un);
    uint2 hi, lo;
    split_pair(make_float2(v.x * scale, v.y * scale), &hi.x, &lo.x);
    split_pair(make_float2(v.z * scale, v.w * scale), &hi.y, &lo.y);
    char *dst = terms + tile_at<ROWS>(row, at / 2) + at % 2 * 8;
    *(uint2 *)dst = lo;
    *(uint2 *)(dst + bytes) = hi;
    if (at == 0)
        unscale[row] = un;
}

template <typename S>
__device__ __forceinline__ void load_queries(const struct attention_args &a, const struct attention_tile &t, int kv_head,
                                             const struct high_smem<S> &m)
{
    int group = a.h / a.hk;
    for (int i = threadIdx.x; i < S::ROWS * S::LANES; i += S::THREADS) {
        int p = i / S::LANES, at = i % S::LANES, r = packed_row(a, t, p), head = kv_head * group + (t.first + p) % group;
        float4 v = make_float4(0, 0, 0, 0);
        if (r >= 0 && at * 4 < a.hd)
            v = *(const float4 *)((const float *)a.qkv + ((size_t)r * (a.h + 2 * a.hk) + head) * a.hd + at * 4);
        split_quad<S::ROWS, S::LANES>(v, m.q, S::Q_BYTES, p, at, m.q_un);
    }
}

/* Starts the copies of the keys and values from key j0 on; zeros where there is no key, since 0 x NaN is NaN. */
template <typename S>
__device__ __forceinline__ void fetch_keys(const struct attention_args &a, const int *slots, int n_keys, int j0, int kv_head,
                                           const struct high_smem<S> &m)
{
    size_t v_off = (size_t)a.hk * a.hd;
    const float *base = (const float *)a.kv + (size_t)kv_head * a.hd;
#pragma unroll 4
    for (int i = threadIdx.x; i < S::KEYS * S::LANES; i += S::THREADS) {
        int j = j0 + i / S::LANES, at = i % S::LANES;
        bool valid = j < n_keys && at * 4 < a.hd;
        const float *src = base + (valid ? slots[j] * 2 * v_off + at * 4 : 0);
        copy16(smem_address(m.raw + i * 16), src, valid);
        copy16(smem_address(m.raw + S::RAW_BYTES + i * 16), src + v_off, valid);
    }
    copy_commit();
}

template <typename S> __device__ __forceinline__ void split_keys(const struct high_smem<S> &m)
{
#pragma unroll 4
    for (int i = threadIdx.x; i < S::KEYS * S::LANES; i += S::THREADS) {
        split_quad<S::KEYS, S::LANES>(*(const float4 *)(m.raw + i * 16), m.k, S::K_BYTES, i / S::LANES, i % S::LANES, m.k_un);
        split_quad<S::KEYS, S::LANES>(*(const float4 *)(m.raw + S::RAW_BYTES + i * 16), m.v, S::K_BYTES, i / S::LANES, i % S::LANES,
                                      m.v_un);
    }
}

/* Three products of terms, small ones first, for two neighbouring tiles of 8 columns: lo and hi of b as ldmatrix gives them. */
template <int MT, int N>
__device__ __forceinline__ void multiply_terms(float (&d)[MT][N], int from, const uint32_t (&a_lo)[MT][4], const uint32_t (&a_hi)[MT][4],
                                               const uint32_t (&b_lo)[4], const uint32_t (&b_hi)[4])
{
#pragma unroll
    for (int i = 0; i < MT * 2; i++)
        mma<__half>(&d[i / 2][from + i % 2 * 4], a_lo[i / 2], b_hi[i % 2 * 2], b_hi[i % 2 * 2 + 1]);
#pragma unroll
    for (int i = 0; i < MT * 2; i++)
        mma<__half>(&d[i / 2][from + i % 2 * 4], a_hi[i / 2], b_lo[i % 2 * 2], b_lo[i % 2 * 2 + 1]);
#pragma unroll
    for (int i = 0; i < MT * 2; i++)
        mma<__half>(&d[i / 2][from + i % 2 * 4], a_hi[i / 2], b_hi[i % 2 * 2], b_hi[i % 2 * 2 + 1]);
}

/* Scaled scores of the warp's rows. */
template <int HD, int MT, int BN>
__device__ __forceinline__ void multiply_keys(float (&s)[MT][BN / 2], const struct high_smem<high_attention_shape<HD, MT, BN>> &m)
{
    typedef high_attention_shape<HD, MT, BN> S;
    int lane = threadIdx.x % 32;
    uint32_t q = smem_address(m.q), k = smem_address(m.k);
#pragma unroll
    for (int i = 0; i < MT * BN / 2; i++)
        s[i / (BN / 2)][i % (BN / 2)] = 0;
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t a_lo[MT][4], a_hi[MT][4], b_lo[4], b_hi[4];
#pragma unroll
        for (int i = 0; i < MT; i++) {
            uint32_t from = q + tile_at<S::ROWS>(threadIdx.x / 32 * S::WARP_ROWS + i * 16 + lane % 16, step * 2 + lane / 16);
            ldmatrix(a_lo[i], from);
            ldmatrix(a_hi[i], from + S::Q_BYTES);
        }
#pragma unroll
        for (int j = 0; j < BN / 16; j++) {
            uint32_t from = k + tile_at<BN>(j * 16 + lane / 16 * 8 + lane % 8, step * 2 + lane / 8 % 2);
            ldmatrix(b_lo, from);
            ldmatrix(b_hi, from + S::K_BYTES);
            multiply_terms(s, j * 8, a_lo, a_hi, b_lo, b_hi);
        }
    }
}

/* A thread's packed rows of one tile of 16: lane/4 and lane/4 + 8. Scores are in units of log 2 once q_un has been multiplied in. */
struct row_state {
    int row[2], visible[2]; /* row of `out` in heads, or -1; keys it sees */
    float max[2], sum[2], q_un[2];

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

    /* s becomes the weights of keys j0 .. times their values' scale and the row's; keep: what earlier sums must be multiplied with; un: what takes the row's
     * scale back. */
    template <int BN>
    __device__ __forceinline__ void softmax(float (&s)[BN / 2], int j0, const float *k_un, const float *v_un, float keep[2], float un[2])
    {
        int lane = threadIdx.x % 32;
        float top[2] = {max[0], max[1]}, most[2] = {0, 0}, add[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < BN / 2; i++) {
            int c = i / 4 * 8 + lane % 4 * 2 + i % 2, h = i / 2 % 2;
            s[i] = j0 + c < visible[h] ? s[i] * k_un[c] * q_un[h] : -CUDART_INF_F;
            top[h] = fmaxf(top[h], s[i]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 1));
            top[h] = fmaxf(top[h], __shfl_xor_sync(~0u, top[h], 2));
            float shift = top[h] == -CUDART_INF_F ? 0 : top[h];
            keep[h] = exp2_fast(max[h] - shift);
            max[h] = top[h];
            top[h] = shift;
        }
#pragma unroll
        for (int i = 0; i < BN / 2; i++) {
            int c = i / 4 * 8 + lane % 4 * 2 + i % 2, h = i / 2 % 2;
            float w = exp2_fast(s[i] - top[h]);
            add[h] += w;
            s[i] = w * v_un[c];
            most[h] = fmaxf(most[h], s[i]);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 1));
            most[h] = fmaxf(most[h], __shfl_xor_sync(~0u, most[h], 2));
            sum[h] = fmaf(sum[h], keep[h], add[h]);
            most[h] = half_scale(most[h], &un[h]);
        }
#pragma unroll
        for (int i = 0; i < BN / 2; i++)
            s[i] *= most[i / 2 % 2];
    }

    template <int O> __device__ __forceinline__ void store(const struct attention_args &a, const float (&o)[O]) const
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            if (row[h] < 0)
                continue;
            float inverse = 1.0f / total, *out = (float *)a.out + (size_t)row[h] * a.hd;
#pragma unroll
            for (int i = 0; i < O / 4; i++) {
                int c = i * 8 + threadIdx.x % 4 * 2;
                if (c < a.hd)
                    *(float2 *)(out + c) = make_float2(o[i * 4 + h * 2] * inverse, o[i * 4 + h * 2 + 1] * inverse);
            }
        }
    }
};

/* o = keep o + weights times values; scores of 16 keys are just the operand's order. */
template <int HD, int MT, int BN>
__device__ __forceinline__ void multiply_values(float (&o)[MT][HD / 2], const float (&s)[MT][BN / 2], const float (&keep)[MT][2],
                                                const float (&un)[MT][2], uint32_t v)
{
    typedef high_attention_shape<HD, MT, BN> S;
    int lane = threadIdx.x % 32;
    uint32_t p_lo[BN / 16][MT][4], p_hi[BN / 16][MT][4];
#pragma unroll
    for (int i = 0; i < BN / 16 * MT * 4; i++) {
        int step = i / (MT * 4), t = i / 4 % MT, e = step * 8 + i % 4 * 2;
        split_pair(make_float2(s[t][e], s[t][e + 1]), &p_hi[step][t][i % 4], &p_lo[step][t][i % 4]);
    }
#pragma unroll
    for (int j = 0; j < HD / 16; j++) {
        float part[MT][8] = {};
#pragma unroll
        for (int step = 0; step < BN / 16; step++) {
            uint32_t b_lo[4], b_hi[4], from = v + tile_at<BN>(step * 16 + lane % 16, j * 2 + lane / 16);
            ldmatrix_transposed(b_lo, from);
            ldmatrix_transposed(b_hi, from + S::K_BYTES);
            multiply_terms(part, 0, p_lo[step], p_hi[step], b_lo, b_hi);
        }
#pragma unroll
        for (int i = 0; i < MT * 8; i++) {
            float &to = o[i / 8][j * 8 + i % 8];
            to = fmaf(part[i / 8][i % 8], un[i / 8][i / 2 % 2], to * keep[i / 8][i / 2 % 2]);
        }
    }
}

template <int HD, int MT, int BN>
__device__ __forceinline__ void attend_piece(const struct attention_args &a, const struct attention_tile &t, int kv_head,
                                             const struct high_smem<high_attention_shape<HD, MT, BN>> &m)
{
    typedef high_attention_shape<HD, MT, BN> S;
    const int *slots = t.slots(a);
    int warp_rows = threadIdx.x / 32 * S::WARP_ROWS, seen = 0; /* keys that any row of the warp sees */
    struct row_state rows[MT];
    float o[MT][HD / 2] = {};
    fetch_keys<S>(a, slots, t.n_keys, 0, kv_head, m);
    load_queries<S>(a, t, kv_head, m);
#pragma unroll
    for (int i = 0; i < MT; i++) {
        rows[i].load(a, t, kv_head, warp_rows + i * 16);
        seen = max(seen, max(rows[i].visible[0], rows[i].visible[1]));
    }
    seen = __reduce_max_sync(~0u, seen);
    for (int j0 = 0; j0 < t.n_keys; j0 += BN) {
        copy_wait<0>();
        __syncthreads(); /* the block has come, and everyone is done with the one before it */
        split_keys<S>(m);
        __syncthreads();
        fetch_keys<S>(a, slots, t.n_keys, j0 + BN, kv_head, m);
        if (j0 == 0)
#pragma unroll
            for (int i = 0; i < MT * 2; i++)
                rows[i / 2].q_un[i % 2] =
                    m.q_un[warp_rows + i / 2 * 16 + threadIdx.x % 32 / 4 + i % 2 * 8] * (a.scale * 1.4426950408889634f);
        if (j0 >= seen)
            continue;
        float s[MT][BN / 2], keep[MT][2], un[MT][2];
        multiply_keys<HD, MT, BN>(s, m);
#pragma unroll
        for (int i = 0; i < MT; i++)
            rows[i].template softmax<BN>(s[i], j0, m.k_un, m.v_un, keep[i], un[i]);
        multiply_values<HD, MT, BN>(o, s, keep, un, smem_address(m.v));
    }
    copy_wait<0>();
#pragma unroll
    for (int i = 0; i < MT; i++)
        rows[i].store(a, o[i]);
}

struct high_attention_args {
    struct attention_args a;
    struct attention_tiles tiles;
};

template <int HD, int MT, int BN>
__global__ void __launch_bounds__(high_attention_shape<HD, MT, BN>::THREADS, 2)
    attention_high_pieces(const __grid_constant__ struct high_attention_args p)
{
    extern __shared__ __align__(1024) char smem[];
    __shared__ int next;
    const struct high_smem<high_attention_shape<HD, MT, BN>> m(smem);
    int total = *p.tiles.count * p.a.hk;
    for (int number = blockIdx.x; number < total;) {
        attend_piece<HD, MT, BN>(p.a, p.tiles.tile[number / p.a.hk], number % p.a.hk, m);
        if (threadIdx.x == 0)
            next = gridDim.x + atomicAdd(p.tiles.taken, 1);
        __syncthreads(); /* also: the piece's tiles are free */
        number = next;
        __syncthreads();
    }
    if (threadIdx.x == 0)
        attention_end_block(p.tiles);
}

template <int HD, int MT, int BN> static int start(struct cuda_ctx *c, const struct attention_args *a)
{
    typedef high_attention_shape<HD, MT, BN> S;
    auto kernel = attention_high_pieces<HD, MT, BN>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    struct high_attention_args p = {*a};
    r = attention_list_tiles(c, a, S::ROWS, &p.tiles);
    if (r < 0)
        return r;
    kernel<<<2 * c->n_sm, S::THREADS, S::SMEM_BYTES, c->stream>>>(p);
    return launched(&c->k, "attention_high");
}

int attention_high(struct cuda_ctx *c, const struct attention_args *a)
{
    return a->hd <= 64 ? start<64, 2, 64>(c, a) : start<128, 1, 32>(c, a);
}
