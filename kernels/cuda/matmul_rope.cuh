/* How a tile of q, k and v heads is written where they are turned and stored on the way: the bits of rope_store after the product. */
#pragma once
#include "kernels/cuda/matmul_tile.cuh"

/* A panel of 64 columns, of head `head` from its column `first` on: q goes to y, k and v to the slots of the lane's rows (row0 + 4 i + lane / 8). */
template <typename T, int HD>
__device__ __forceinline__ void write_head_panel(const struct matmul_out &o, const T *stage, int row0, int m, const int (&slot)[4],
                                                 int head, int first)
{
    const struct rope_end &e = o.rope;
    int lane = threadIdx.x % 32, c = first + lane % 8 * 8;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = row0 + i * 4 + lane / 8;
        const uint4 *src = (const uint4 *)(stage + (i * 4 + lane / 8) * STAGING_LD + lane % 8 * 8);
        if (row >= m || head >= e.h + 2 * e.hk)
            continue;
        if (head < e.h)
            *(uint4 *)((T *)o.y + (size_t)row * o.ldy + head * HD + c) = *src;
        else if (slot[i] >= 0) /* a slot's heads of k, and then those of v */
            *(uint4 *)((T *)e.kv + ((size_t)slot[i] * 2 * e.hk + head - e.h) * HD + c) = *src;
    }
    __syncwarp();
}

template <typename T> __device__ __forceinline__ float rounded(float v)
{
    return to_f32(from_f32<T>(v));
}

/* What turns a lane's two rows of a warp's 16 (lane / 4, and 8 further), and the slots of the four that it writes; read before the products are there. The columns
 * are those of its accumulators: 8 j + 2 (lane % 4) and the next of half a head. */
template <int HD> struct rope_lane {
    float2 cos[2][HD / 16], sin[2][HD / 16];
    int slot[4];
    __device__ __forceinline__ void load(const struct rope_end &e, int row0, int m)
    {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int row = row0 + i * 8 + lane / 4;
            size_t at = (row < m ? (size_t)__ldg(e.pos + row) * (HD / 2) : 0) + lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < HD / 16; j++) {
                cos[i][j] = __ldg((const float2 *)(e.cos + at + j * 8));
                sin[i][j] = __ldg((const float2 *)(e.sin + at + j * 8));
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = row0 + i * 4 + lane / 8;
            slot[i] = row < m ? __ldg(e.slot + row) : -1;
        }
    }
};

/* acc, stage: as write_act's. The other half of a head's columns is in the same lane. */
template <typename T, int BN, int HD>
__device__ __forceinline__ void write_rope(const struct tile_args &a, const float (&acc)[BN / 2], const struct rope_lane<HD> &turn,
                                           T *stage, int row0, int m, int n0)
{
    static_assert(BN % HD == 0 && HD % 64 == 0, "whole heads, in whole panels");
    enum { HALF = HD / 2 };
    const struct rope_end &e = a.out.rope;
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2;
#pragma unroll
    for (int p = 0; p < BN; p += 64) {
        int head = (n0 + p) / HD;
        bool turns = head < e.h + e.hk;
#pragma unroll
        for (int j = 0; j < 64; j += 8) {
            const int in = (p + j) % HD, other = in < HALF ? p + j + HALF : p + j - HALF;
            float2 b = bias_at(a, n0 + p + j + c), b_other = bias_at(a, n0 + other + c);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int q = (p + j) / 2 + i * 2, q_other = other / 2 + i * 2;
                float x = rounded<T>(acc[q] + b.x), y = rounded<T>(acc[q + 1] + b.y);
                if (turns) {
                    float2 cos = turn.cos[i][in % HALF / 8], sin = turn.sin[i][in % HALF / 8];
                    float x_sin = rounded<T>(acc[q_other] + b_other.x) * sin.x, y_sin = rounded<T>(acc[q_other + 1] + b_other.y) * sin.y;
                    x = in < HALF ? x * cos.x - x_sin : x * cos.x + x_sin;
                    y = in < HALF ? y * cos.y - y_sin : y * cos.y + y_sin;
                }
                stage_pair(stage, r + i * 8, j + c, x, y);
            }
        }
        write_head_panel<T, HD>(a.out, stage, row0, m, turn.slot, head, p % HD);
    }
}
