/* Matmul on Hopper's tensor cores. A persistent block: one warpgroup feeds a ring of stages through the copy engine, the others compute
 * 64 rows each of a tile with wgmma and write it out while the next tile's operands arrive.
 *
 * Every element is one chain over k in steps of 16, whatever the tile: the shapes below give the same bits. */
#pragma once
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/sm90.cuh"

struct sm90_args {
    int k;                /* depth in columns of the packed weights */
    int rows;             /* packed weight rows */
    struct matmul_out out;
};

enum { TILE_K = 64, TILE_K_BYTES = 128, STAGING_LD = 72, STAGING_BYTES = 16 * STAGING_LD * 2 };

/* WGS warpgroups of 64 rows, BN columns, STAGES of the ring. */
template <int WGS, int BN, int STAGES> struct sm90_shape {
    enum {
        BM = 64 * WGS, THREADS = 128 * (WGS + 1), A_BYTES = BM * TILE_K_BYTES, B_BYTES = BN * TILE_K_BYTES, STAGE_BYTES = A_BYTES + B_BYTES,
        B_BOX = BN < 64 ? BN : 64,
        SMEM_BYTES = 1024 + STAGES * STAGE_BYTES + WGS * 4 * STAGING_BYTES + 2 * STAGES * 8
    };
};

#if HAVE_SM90

/* Tiles in an order that keeps what neighbouring blocks read in the L2 cache: GROUP tile rows at a time, rows first. */
struct tile_order {
    int m_tiles, n_tiles;
    __device__ __forceinline__ void at(int t, int *m, int *n) const
    {
        const int GROUP = 16;
        int per_group = GROUP * n_tiles, first = t / per_group * GROUP, in = t % per_group;
        int height = m_tiles - first < GROUP ? m_tiles - first : GROUP;
        *m = first + in % height;
        *n = in / height;
    }
};

/* Stage and phase of the ring, advanced by both sides in the same order. */
template <int STAGES> struct ring {
    int stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* ---- writing a tile: acc is 64 rows x BN columns of a warpgroup, `warp` one of its four ---- */

/* 16 rows x 64 columns of this warp through shared memory, so that rows leave in pieces of 16 bytes. */
template <typename T> __device__ __forceinline__ void write_panel(const struct matmul_out &o, const T *stage, int row0, int m, int col0)
{
    int lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int r = i * 4 + lane / 8, c = lane % 8 * 8, row = row0 + r;
        if (row >= m || col0 + c >= o.n)
            continue;
        T *dst = (T *)o.y + (size_t)row_at(o.rows, row) * o.ldy + col0 + c;
        const T *src = stage + r * STAGING_LD + c;
        if (o.wide && col0 + c + 8 <= o.n)
            *(uint4 *)dst = *(const uint4 *)src;
        else
            for (int j = 0; j < 8 && col0 + c + j < o.n; j++)
                dst[j] = src[j];
    }
    __syncwarp();
}

template <typename T> __device__ __forceinline__ void stage_pair(T *stage, int r, int c, float a, float b)
{
    struct alignas(4) pair { T a, b; };
    *(pair *)(stage + r * STAGING_LD + c) = {from_f32<T>(a), from_f32<T>(b)};
}

__device__ __forceinline__ float2 bias_at(const struct matmul_out &o, int c, int limit)
{
    return o.bias ? make_float2(c < limit ? o.bias[c] : 0, c + 1 < limit ? o.bias[c + 1] : 0) : make_float2(0, 0);
}

template <typename T, int BN>
__device__ __forceinline__ void write_act(const struct sm90_args &a, const float (&acc)[BN / 2], T *stage, int row0, int m, int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2;
    constexpr int PANEL = BN < 64 ? BN : 64;
#pragma unroll
    for (int p = 0; p < BN / PANEL; p++) {
#pragma unroll
        for (int j = 0; j < PANEL / 8; j++) {
            int q = (p * PANEL / 8 + j) * 4;
            float2 b = bias_at(a.out, n0 + p * PANEL + j * 8 + c, a.rows);
            stage_pair(stage, r, j * 8 + c, acc[q] + b.x, acc[q + 1] + b.y);
            stage_pair(stage, r + 8, j * 8 + c, acc[q + 2] + b.x, acc[q + 3] + b.y);
        }
        struct matmul_out o = a.out;
        if (PANEL < 64)
            o.n = o.n < n0 + (p + 1) * PANEL ? o.n : n0 + (p + 1) * PANEL;
        write_panel(o, stage, row0, m, n0 + p * PANEL);
    }
}

/* Packed columns 16 g + i and 16 g + 8 + i are gate and up of output 8 g + i. */
template <typename T, int BN>
__device__ __forceinline__ void write_swiglu(const struct sm90_args &a, const float (&acc)[BN / 2], T *stage, int row0, int m, int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2;
    constexpr int OUT = BN / 2, PANEL = OUT < 64 ? OUT : 64;
#pragma unroll
    for (int p = 0; p < (OUT + PANEL - 1) / PANEL; p++) {
#pragma unroll
        for (int j = 0; j < PANEL / 8; j++) {
            int q = (p * PANEL / 8 + j) * 8, col = n0 + (p * PANEL / 8 + j) * 16 + c;
            if (q >= BN / 2)
                break;
            float2 g = bias_at(a.out, col, a.rows), u = bias_at(a.out, col + 8, a.rows);
            stage_pair(stage, r, j * 8 + c, silu(acc[q] + g.x) * (acc[q + 4] + u.x), silu(acc[q + 1] + g.y) * (acc[q + 5] + u.y));
            stage_pair(stage, r + 8, j * 8 + c, silu(acc[q + 2] + g.x) * (acc[q + 6] + u.x), silu(acc[q + 3] + g.y) * (acc[q + 7] + u.y));
        }
        struct matmul_out o = a.out;
        int end = n0 / 2 + ((p + 1) * PANEL < OUT ? (p + 1) * PANEL : OUT);
        o.n = o.n < end ? o.n : end;
        write_panel(o, stage, row0, m, n0 / 2 + p * PANEL);
    }
}

/* y = v, or y += gate * v. The addition is left to the memory: each element has one addend, so the order is no question. */
__device__ __forceinline__ void write_pair_f32(const struct matmul_out &o, float *y, int c, float gate, float a, float b)
{
    if (o.end == END_F32) {
        if (o.wide && c + 1 < o.n) {
            *(float2 *)y = make_float2(a, b);
        } else {
            y[0] = a;
            if (c + 1 < o.n)
                y[1] = b;
        }
    } else if (o.wide && c + 1 < o.n) {
        asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(y), "f"(gate * a), "f"(gate * b) : "memory");
    } else {
        y[0] += gate * a;
        if (c + 1 < o.n)
            y[1] += gate * b;
    }
}

template <int BN> __device__ __forceinline__ void write_f32(const struct sm90_args &a, const float (&acc)[BN / 2], int row0, int m, int n0)
{
    int lane = threadIdx.x % 32, c0 = n0 + lane % 4 * 2;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int row = row0 + half * 8 + lane / 4;
        if (row >= m)
            continue;
        int r = row_at(a.out.rows, row);
        float gate = a.out.gate ? a.out.gate[r] : 1.0f, *y = (float *)a.out.y + (size_t)r * a.out.ldy;
#pragma unroll
        for (int j = 0; j < BN / 8; j++) {
            int c = c0 + j * 8;
            if (c >= a.out.n)
                break;
            float2 b = bias_at(a.out, c, a.rows);
            write_pair_f32(a.out, y + c, c, gate, acc[j * 4 + half * 2] + b.x, acc[j * 4 + half * 2 + 1] + b.y);
        }
    }
}

template <typename T, int BN>
__device__ __forceinline__ void write_tile(const struct sm90_args &a, const float (&acc)[BN / 2], T *stage, int row0, int m, int n0)
{
    if (a.out.end == END_ACT)
        write_act<T, BN>(a, acc, stage, row0, m, n0);
    else if (a.out.end == END_SWIGLU)
        write_swiglu<T, BN>(a, acc, stage, row0, m, n0);
    else
        write_f32<BN>(a, acc, row0, m, n0);
}

#endif /* HAVE_SM90 */
