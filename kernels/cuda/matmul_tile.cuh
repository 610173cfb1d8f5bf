/* What the tensor-core matmuls share: the order of their tiles, and how a tile is written. */
#pragma once
#include "kernels/cuda/matmul.cuh"

struct tile_args {
    int k;    /* depth in columns of the packed weights */
    int rows; /* packed weight rows */
    struct matmul_out out;
};

/* Staging rows are apart by what spreads them over the banks: 64 16-bit columns in 72, 32 f32 columns in 40. */
enum { STAGING_LD = 72, STAGING_LD_F32 = 40, STAGING_BYTES = 16 * STAGING_LD_F32 * 4 };

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

/* ---- writing a tile: acc is 16 rows x BN columns of a warp, as mma (mma.cuh) and wgmma (sm90.cuh) lay them out ----
 *
 * Results pass through 16 rows of shared memory that the warp has to itself, so that they leave in pieces of 16 bytes. */

/* The rows that this lane writes: row0 + 4 i + lane / 8, as step rows; -1 beyond the set. */
struct out_rows {
    int r[4];
    float gate[4];
    __device__ __forceinline__ out_rows(const struct matmul_out &o, int row0, int m)
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = row0 + i * 4 + threadIdx.x % 32 / 8;
            r[i] = row < m ? row_at(o.rows, row) : -1;
            gate[i] = o.gate && r[i] >= 0 ? o.gate[r[i]] : 1.0f;
        }
    }
};

/* The copies of columns c .. c+7 of step row r. */
template <typename T> __device__ __forceinline__ void write_fan(const struct matmul_out &o, const T *src, int r, int c, bool wide, int n)
{
    T *dst = (T *)o.fan + (size_t)r * o.n * o.fan_group + c / o.hd * o.fan_group * o.hd + c % o.hd;
    for (int g = 0; g < o.fan_group; g++, dst += o.hd)
        if (wide)
            *(uint4 *)dst = *(const uint4 *)src;
        else
            for (int j = 0; j < 8 && j < n; j++)
                dst[j] = src[j];
}

/* Columns col0 .. of 8 lanes x 8 elements, none at or beyond `end`. FAN: and their copies, if any; a kernel that need not ask is faster by 8 to 14 %. */
template <typename T, bool FAN>
__device__ __forceinline__ void write_panel(const struct matmul_out &o, const T *stage, const struct out_rows &rows, int col0, int end)
{
    int lane = threadIdx.x % 32, c = lane % 8 * 8;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (rows.r[i] < 0 || col0 + c >= end)
            continue;
        T *dst = (T *)o.y + (size_t)rows.r[i] * o.ldy + col0 + c;
        const T *src = stage + (i * 4 + lane / 8) * STAGING_LD + c;
        if (o.wide && col0 + c + 8 <= end)
            *(uint4 *)dst = *(const uint4 *)src;
        else
            for (int j = 0; j < 8 && col0 + c + j < end; j++)
                dst[j] = src[j];
        if (FAN && o.fan)
            write_fan(o, src, rows.r[i], col0 + c, o.wide && col0 + c + 8 <= end, end - col0 - c);
    }
    __syncwarp();
}

template <typename T> __device__ __forceinline__ void stage_pair(T *stage, int r, int c, float a, float b)
{
    struct alignas(4) pair {
        T a, b;
    };
    *(pair *)(stage + r * STAGING_LD + c) = {from_f32<T>(a), from_f32<T>(b)};
}

__device__ __forceinline__ float2 bias_at(const struct tile_args &a, int c)
{
    const float *b = a.out.bias;
    return b ? make_float2(c < a.rows ? b[c] : 0, c + 1 < a.rows ? b[c + 1] : 0) : make_float2(0, 0);
}

template <typename T, int BN, bool FAN>
__device__ __forceinline__ void write_act(const struct tile_args &a, const float (&acc)[BN / 2], T *stage, const struct out_rows &rows,
                                          int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2, end = a.out.n < n0 + BN ? a.out.n : n0 + BN;
#pragma unroll
    for (int p = 0; p < BN; p += 64) {
#pragma unroll
        for (int j = 0; j < 64 && p + j < BN; j += 8) {
            int q = (p + j) / 2;
            float2 b = bias_at(a, n0 + p + j + c);
            stage_pair(stage, r, j + c, acc[q] + b.x, acc[q + 1] + b.y);
            stage_pair(stage, r + 8, j + c, acc[q + 2] + b.x, acc[q + 3] + b.y);
        }
        write_panel<T, FAN>(a.out, stage, rows, n0 + p, end);
    }
}

/* z / (1 + e^-z) by the fast exponential and reciprocal: a few units of 2^-22, far below the rounding of the result. */
__device__ __forceinline__ float silu_fast(float z)
{
    return __fdividef(z, 1.0f + __expf(-z));
}

/* Packed columns 16 g + i and 16 g + 8 + i are gate and up of output 8 g + i. */
template <typename T, int BN>
__device__ __forceinline__ void write_swiglu(const struct tile_args &a, const float (&acc)[BN / 2], T *stage, const struct out_rows &rows,
                                             int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2, f0 = n0 / 2, end = a.out.n < f0 + BN / 2 ? a.out.n : f0 + BN / 2;
#pragma unroll
    for (int p = 0; p < BN / 2; p += 64) {
#pragma unroll
        for (int j = 0; j < 64 && p + j < BN / 2; j += 8) {
            int q = p + j, col = n0 + (p + j) * 2 + c;
            float2 g = bias_at(a, col), u = bias_at(a, col + 8);
            stage_pair(stage, r, j + c, silu_fast(acc[q] + g.x) * (acc[q + 4] + u.x), silu_fast(acc[q + 1] + g.y) * (acc[q + 5] + u.y));
            stage_pair(stage, r + 8, j + c, silu_fast(acc[q + 2] + g.x) * (acc[q + 6] + u.x),
                       silu_fast(acc[q + 3] + g.y) * (acc[q + 7] + u.y));
        }
        write_panel<T, false>(a.out, stage, rows, f0 + p, end);
    }
}

/* y = v, or y += gate * v. Where it can, the addition is left to the memory: each element has one addend, so the order is no question. */
__device__ __forceinline__ void write_quad(const struct matmul_out &o, float *y, float4 v, float gate, int n)
{
    if (o.end == END_RESIDUAL)
        v = make_float4(gate * v.x, gate * v.y, gate * v.z, gate * v.w);
    if (o.wide && n >= 4 && o.end == END_RESIDUAL) {
#if __CUDA_ARCH__ >= 900
        asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(y), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
#else
        float4 old = *(const float4 *)y;
        *(float4 *)y = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
#endif
    } else if (o.wide && n >= 4) {
        *(float4 *)y = v;
    } else {
        float e[4] = {v.x, v.y, v.z, v.w};
        for (int i = 0; i < 4 && i < n; i++)
            y[i] = o.end == END_RESIDUAL ? y[i] + e[i] : e[i];
    }
}

template <int BN>
__device__ __forceinline__ void write_f32(const struct tile_args &a, const float (&acc)[BN / 2], float *stage, const struct out_rows &rows,
                                          int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2, end = a.out.n < n0 + BN ? a.out.n : n0 + BN;
#pragma unroll
    for (int p = 0; p < BN; p += 32) {
#pragma unroll
        for (int j = 0; j < 32 && p + j < BN; j += 8) {
            int q = (p + j) / 2;
            float2 b = bias_at(a, n0 + p + j + c);
            *(float2 *)(stage + r * STAGING_LD_F32 + j + c) = make_float2(acc[q] + b.x, acc[q + 1] + b.y);
            *(float2 *)(stage + (r + 8) * STAGING_LD_F32 + j + c) = make_float2(acc[q + 2] + b.x, acc[q + 3] + b.y);
        }
        __syncwarp();
        int col = n0 + p + lane % 8 * 4;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (rows.r[i] >= 0 && col < end)
                write_quad(a.out, (float *)a.out.y + (size_t)rows.r[i] * a.out.ldy + col,
                           *(const float4 *)(stage + (i * 4 + lane / 8) * STAGING_LD_F32 + lane % 8 * 4), rows.gate[i], end - col);
        __syncwarp();
    }
}

/* Four columns of the lane's four rows, of a packed row and of the step row that it came from. */
struct blend_operands {
    float4 packed[4], x[4];
    __device__ __forceinline__ void load(const struct matmul_out &o, const struct out_rows &rows, int row0, int col, bool there)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (rows.r[i] >= 0 && there) {
                packed[i] = *(const float4 *)(o.packed + (size_t)(row0 + i * 4 + threadIdx.x % 32 / 8) * o.n + col);
                x[i] = *(const float4 *)((const float *)o.y + (size_t)rows.r[i] * o.ldy + col);
            }
    }
};

template <enum blend_mode MODE> __device__ __forceinline__ float4 blended4(float4 x, float4 packed, float4 v, float gate)
{
    return make_float4(blended<MODE>(x.x, packed.x + v.x, gate), blended<MODE>(x.y, packed.y + v.y, gate),
                       blended<MODE>(x.z, packed.z + v.z, gate), blended<MODE>(x.w, packed.w + v.w, gate));
}

/* Columns come in fours, and rows start at multiples of 16 bytes. */
template <int BN>
__device__ __forceinline__ void write_blend(const struct tile_args &a, const float (&acc)[BN / 2], float *stage,
                                            const struct out_rows &rows, int row0, int n0)
{
    int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4 * 2, end = a.out.n < n0 + BN ? a.out.n : n0 + BN;
#pragma unroll
    for (int p = 0; p < BN; p += 32) {
        int col = n0 + p + lane % 8 * 4;
        struct blend_operands in;
        in.load(a.out, rows, row0, col, col < end);
#pragma unroll
        for (int j = 0; j < 32 && p + j < BN; j += 8) {
            int q = (p + j) / 2;
            float2 b = bias_at(a, n0 + p + j + c);
            *(float2 *)(stage + r * STAGING_LD_F32 + j + c) = make_float2(acc[q] + b.x, acc[q + 1] + b.y);
            *(float2 *)(stage + (r + 8) * STAGING_LD_F32 + j + c) = make_float2(acc[q + 2] + b.x, acc[q + 3] + b.y);
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (rows.r[i] >= 0 && col < end) {
                float4 v = *(const float4 *)(stage + (i * 4 + lane / 8) * STAGING_LD_F32 + lane % 8 * 4);
                *(float4 *)((float *)a.out.y + (size_t)rows.r[i] * a.out.ldy + col) =
                    a.out.mode == BLEND_ADD ? blended4<BLEND_ADD>(in.x[i], in.packed[i], v, rows.gate[i])
                                            : blended4<BLEND_TOWARDS>(in.x[i], in.packed[i], v, rows.gate[i]);
            }
        __syncwarp();
    }
}

template <typename T, int BN, bool FAN>
__device__ __forceinline__ void write_tile(const struct tile_args &a, const float (&acc)[BN / 2], void *stage, int row0, int m, int n0)
{
    struct out_rows rows(a.out, row0, m);
    if (a.out.end == END_ACT)
        write_act<T, BN, FAN>(a, acc, (T *)stage, rows, n0);
    else if (a.out.end != END_SWIGLU)
        write_f32<BN>(a, acc, (float *)stage, rows, n0);
    else if constexpr (BN % 16 == 0) /* gate and up of eight outputs; narrower tiles are not asked for */
        write_swiglu<T, BN>(a, acc, (T *)stage, rows, n0);
}
