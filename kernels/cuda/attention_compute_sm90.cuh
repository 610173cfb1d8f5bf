/* The computing warpgroups of attention: 64 packed rows each, with queries, scores and sums in registers. The product with the next keys runs under the
 * softmax of the present ones. */
#pragma once
#include "kernels/cuda/attention_sm90.cuh"
#include <math_constants.h>

#if HAVE_SM90

/* Reads of these registers stay behind the wait before. */
template <int N> __device__ __forceinline__ void registers_ready(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* One thread's two packed rows (lane/4 and lane/4 + 8 of the warp's 16) of a piece. */
struct query_rows {
    int row[2], visible[2]; /* row of `out` in heads, or -1 */
    int all_see;            /* keys that every row of the warpgroup sees */
    int n_keys;             /* that any row of the tile sees; 0: no piece */
    float max[2], sum[2];

    /* of: the warpgroup's 64 rows */
    __device__ __forceinline__ void load(const int2 *of, int keys)
    {
        int base = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
        n_keys = keys;
        all_see = of[0].y;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            row[i] = of[base + i * 8].x;
            visible[i] = of[base + i * 8].y;
            max[i] = -CUDART_INF_F;
            sum[i] = 0;
        }
    }

    /* s (scores of the 2 N keys j0..) becomes exp2 of scaled scores less the row's maximum; keep: what earlier sums must be multiplied with. */
    template <int N> __device__ __forceinline__ void softmax(float (&s)[N], int j0, float scale_log2, float keep[2])
    {
        int lane = threadIdx.x % 32;
        if (j0 + 2 * N > all_see)
#pragma unroll
            for (int i = 0; i < N; i++)
                if (j0 + i / 4 * 8 + lane % 4 * 2 + i % 2 >= visible[i / 2 % 2])
                    s[i] = -CUDART_INF_F;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float tops[4] = {max[h], max[h], max[h], max[h]}; /* four chains: two warps a scheduler hide little latency */
#pragma unroll
            for (int i = 0; i < N / 4; i++)
                tops[i % 4] = fmaxf(tops[i % 4], fmaxf(s[i * 4 + h * 2], s[i * 4 + h * 2 + 1]));
            float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float shift = top == -CUDART_INF_F ? 0 : top * scale_log2;
            keep[h] = top == max[h]
                          ? 1
                          : exp2_fast(fmaf(max[h], scale_log2, -shift)); /* shift is rounded: without a new maximum this must be 1 */
            max[h] = top;
            float add[4] = {};
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                float &x = s[i / 2 * 4 + h * 2 + i % 2];
                x = exp2_fast(fmaf(x, scale_log2, -shift));
                add[i % 4] += x;
            }
            sum[h] = fmaf(sum[h], keep[h], (add[0] + add[1]) + (add[2] + add[3]));
        }
    }
};

/* Lane q of a quad gives word j of its four to lane j, and gets theirs in the order of the lanes. */
__device__ __forceinline__ uint4 transpose_quad(uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3)
{
    bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
    uint32_t a = __shfl_xor_sync(~0u, odd ? w0 : w1, 1), b = __shfl_xor_sync(~0u, odd ? w2 : w3, 1);
    w0 = odd ? a : w0;
    w1 = odd ? w1 : a;
    w2 = odd ? b : w2;
    w3 = odd ? w3 : b;
    a = __shfl_xor_sync(~0u, high ? w0 : w2, 2);
    b = __shfl_xor_sync(~0u, high ? w1 : w3, 2);
    return high ? make_uint4(a, b, w2, w3) : make_uint4(w0, w1, a, b);
}

/* Rows whose last block has been multiplied: where their results go, and what they are divided by. */
struct finished_rows {
    int row[2];
    float sum[2];
    __device__ __forceinline__ void take(const struct query_rows &q)
    {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            row[h] = q.row[h];
            sum[h] = q.sum[h];
        }
    }

    /* A lane has two of each eight columns; it writes all eight of every fourth eight. */
    template <typename T, int O> __device__ __forceinline__ void store(const struct attention_args &a, const float (&o)[O]) const
    {
        int quad = threadIdx.x % 4;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            float inverse = __fdividef(1.0f, total);
            T *out = (T *)a.out + (size_t)(row[h] < 0 ? 0 : row[h]) * a.hd + quad * 8;
#pragma unroll
            for (int i = 0; i < O; i += 16) {
                uint32_t w[4];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    w[j] = i + j * 4 < O ? pack2<T>(o[(i + j * 4) % O + h * 2] * inverse, o[(i + j * 4) % O + h * 2 + 1] * inverse) : 0;
                uint4 eight = transpose_quad(w[0], w[1], w[2], w[3]);
                if (row[h] >= 0 && i * 2 + quad * 8 < a.hd)
                    *(uint4 *)(out + i * 2) = eight;
            }
        }
    }
};

/* A warpgroup's queries as operands: in registers, or left in shared memory where registers are short. */
template <int HD, int WGS> struct queries {
    typedef attention_shape<HD, WGS, 128> S;
    uint32_t q[S::Q_IN_REGISTERS ? HD / 16 : 1][4], tile;
    __device__ __forceinline__ void load(uint32_t from, int wg)
    {
        int lane = threadIdx.x % 32, r = wg * 64 + threadIdx.x / 32 % 4 * 16 + lane % 16;
        tile = from + wg * 64 * 128;
        if constexpr (S::Q_IN_REGISTERS) {
#pragma unroll
            for (int t = 0; t < HD / 16; t++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(q[t][0]), "=r"(q[t][1]), "=r"(q[t][2]), "=r"(q[t][3])
                             : "r"(from + t / 4 * S::ROWS * 128 + r * 128 + ((t % 4 * 2 + lane / 16) ^ r % 8) * 16)
                             : "memory");
        }
    }
};

/* The operand in registers is not overwritten before the wait that came before. */
template <int N> __device__ __forceinline__ void operand_ready(uint32_t (&p)[N][4])
{
#pragma unroll
    for (int i = 0; i < N * 4; i++)
        asm volatile("" : "+r"(p[i / 4][i % 4])::"memory");
}

/* Starts s = q times a block's keys. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void multiply_keys(float (&s)[BN / 2], const struct queries<HD, WGS> &q, uint32_t k)
{
    typedef attention_shape<HD, WGS, BN> S;
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < HD / 16; t++) {
        uint64_t keys = tile_k_major(k + t / 4 * BN * 128) + t % 4 * 2;
        if constexpr (S::Q_IN_REGISTERS)
            wgmma<T, BN>::template rs<0>(s, q.q[t], keys, t > 0);
        else
            wgmma<T, BN>::ss(s, tile_k_major(q.tile + t / 4 * S::ROWS * 128) + t % 4 * 2, keys, t > 0);
    }
    wgmma_commit();
}

/* Starts o += p times a block's values. */
template <typename T, int HD, int BN>
__device__ __forceinline__ void multiply_values(float (&o)[HD / 2], const uint32_t (&p)[BN / 16][4], uint32_t v, int add)
{
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < BN / 16; t++)
        wgmma<T, HD>::template rs<1>(o, p[t], tile_n_major(v, BN * 128) + t * 128, add || t > 0);
    wgmma_commit();
}

template <typename T, int BN> __device__ __forceinline__ void to_operand(uint32_t (&p)[BN / 16][4], const float (&s)[BN / 2])
{
#pragma unroll
    for (int i = 0; i < BN / 4; i++)
        p[i / 4][i % 4] = pack2<T>(s[i * 2], s[i * 2 + 1]);
}

/* Two warpgroups take turns in issuing products, so that one's softmax runs under the other's products. */
template <int WGS> struct turns {
    int mine;
    __device__ __forceinline__ void begin()
    {
        if (WGS == 2)
            named_sync(2 + mine, 256);
    }
    __device__ __forceinline__ void end()
    {
        if (WGS == 2)
            named_arrive(3 - mine, 256);
    }
};

__device__ __forceinline__ void leave(uint32_t bar)
{
    if (threadIdx.x % 128 == 0)
        barrier_arrive(bar);
}

__device__ __forceinline__ void leave_queries(uint32_t bar)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        barrier_arrive(bar);
}

/* Waits for the next piece and takes its rows and queries. */
template <int HD, int WGS>
__device__ __forceinline__ void take_piece(const struct attention_smem &m, int piece, int wg, struct query_rows *rows,
                                           struct queries<HD, WGS> *q)
{
    typedef attention_shape<HD, WGS, 128> S;
    int place = piece % S::Q_TILES;
    barrier_wait(m.q_full + place * 8, piece / S::Q_TILES % 2);
    rows->load(m.plain->row + place * S::ROWS + wg * 64, m.plain->n_keys[place]);
    q->load(m.q + place * S::Q_BYTES, wg);
    if (S::Q_IN_REGISTERS)
        leave_queries(m.q_empty + place * 8);
}

/* Blocks of all pieces as one stream: the product with the keys of the next block, be it the next piece's first, and the softmax that
 * follows it run beside the product with the values of this one. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void compute_attention(const struct sm90_attention_args &p, const struct attention_smem &m)
{
    typedef attention_shape<HD, WGS, BN> S;
    int wg = threadIdx.x / 128 - 1, piece = 0, at = 0, j0 = 0; /* at: tiles consumed; j0: first key of the present block */
    float s[BN / 2], o[HD / 2], keep[2], scale_log2 = p.a.scale * 1.4426950408889634f;
    uint32_t weights[BN / 16][4];
    bool finished = false; /* the product that runs is of a piece's last block: `done` are its rows */
    struct turns<WGS> turn = {
        wg
    };
    struct query_rows rows;
    struct finished_rows done, next_done;
    struct queries<HD, WGS> q;
    if (WGS == 2 && wg == 1)
        named_arrive(2, 256);
    take_piece(m, piece++, wg, &rows, &q);
    if (rows.n_keys == 0)
        return;
    barrier_wait(m.k_full, 0);
    turn.begin();
    multiply_keys<T, HD, WGS, BN>(s, q, m.k);
    turn.end();
    wgmma_wait<0>();
    registers_ready(s);
    leave(m.k_empty);
    if (!S::Q_IN_REGISTERS && rows.n_keys <= BN)
        leave_queries(m.q_empty);
    rows.softmax(s, 0, scale_log2, keep);
    for (;; at++) { /* s: weights of block `at`; the product of the block before it is still running */
        int v_stage = at % S::V_STAGES, v_phase = at / S::V_STAGES % 2, k_stage = (at + 1) % S::K_STAGES,
            k_phase = (at + 1) / S::K_STAGES % 2;
        wgmma_wait<0>();
        registers_ready(o);
        operand_ready(weights);
        if (at > 0)
            leave(m.v_empty + (at - 1) % S::V_STAGES * 8);
        if (finished)
            done.store<T>(p.a, o);
        else if (!__all_sync(~0u, keep[0] == 1 && keep[1] == 1)) /* most blocks bring no new maximum */
#pragma unroll
            for (int i = 0; i < HD / 2; i++)
                o[i] *= keep[i / 2 % 2];
        to_operand<T, BN>(weights, s);
        int add = j0 > 0;
        finished = j0 + BN >= rows.n_keys;
        j0 = finished ? 0 : j0 + BN;
        if (finished) {
            next_done.take(rows);
            take_piece(m, piece++, wg, &rows, &q);
        }
        if (rows.n_keys == 0) {
            done = next_done;
            barrier_wait(m.v_full + v_stage * 8, v_phase);
            multiply_values<T, HD, BN>(o, weights, m.v + v_stage * S::TILE_BYTES, add);
            break;
        }
        barrier_wait(m.v_full + v_stage * 8, v_phase);
        barrier_wait(m.k_full + k_stage * 8, k_phase);
        turn.begin();
        multiply_keys<T, HD, WGS, BN>(s, q, m.k + k_stage * S::TILE_BYTES);
        if (finished)
            done = next_done;
        multiply_values<T, HD, BN>(o, weights, m.v + v_stage * S::TILE_BYTES, add);
        turn.end();
        wgmma_wait<1>();
        registers_ready(s);
        leave(m.k_empty + k_stage * 8);
        if (!S::Q_IN_REGISTERS && j0 + BN >= rows.n_keys)
            leave_queries(m.q_empty + (piece - 1) % S::Q_TILES * 8);
        /* Last in the loop's body: within one, the assembler moves the exponentials behind the wait for the values' product. */
        rows.softmax(s, j0, scale_log2, keep);
    }
    wgmma_wait<0>();
    registers_ready(o);
    done.store<T>(p.a, o);
}

#endif /* HAVE_SM90 */
