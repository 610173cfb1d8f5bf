/* Matmul in float32 as the class portable-1 defines it: an output is one chain of fused multiply-adds over k in ascending order, from +0, then the bias. Which
 * tile computes it makes no difference.
 *
 * A block computes BM = 16 TM rows and 128 columns with 256 threads, a thread TM rows and 8 columns: four, and the same four 8 further, which in a
 * GATE_UP matrix are the ups of the gates. The next 8 inputs are read from memory while those in shared memory are multiplied. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/portable.h"

enum { BN = 128, BK = 8, THREADS = 256, W_LD = BN + 4 };

struct f32_args {
    const float *x, *w;
    int ldx, ldw, w_rows, k;
    bool quads; /* rows of x start at multiples of 16 bytes */
    struct matmul_out out;
};

/* Where packed column c of the tile lies in shared memory: each thread's two groups of four are whole. */
__device__ __forceinline__ int column_place(int c)
{
    return c % 16 / 8 * 64 + (c / 16 * 2 + c % 8 / 4) * 4 + c % 4;
}

/* Inputs i .. i+3 of a row; those beyond k are 0. */
template <bool WHOLE> __device__ __forceinline__ float4 load_quad(const float *row, int i, int k, bool quads)
{
    if (WHOLE)
        return row ? *(const float4 *)(row + i) : make_float4(0, 0, 0, 0);
    if (!row || i >= k)
        return make_float4(0, 0, 0, 0);
    if (quads && i + 4 <= k)
        return *(const float4 *)(row + i);
    return make_float4(row[i], i + 1 < k ? row[i + 1] : 0, i + 2 < k ? row[i + 2] : 0, i + 3 < k ? row[i + 3] : 0);
}

template <int LD> __device__ __forceinline__ void put_quad(float (*dst)[LD], int i, int at, float4 v)
{
    dst[i][at] = v.x;
    dst[i + 1][at] = v.y;
    dst[i + 2][at] = v.z;
    dst[i + 3][at] = v.w;
}

/* ---- the end ---- */

__device__ __forceinline__ void put_values(float *y, const float v[4], int n, bool wide)
{
    if (wide && n >= 4)
        *(float4 *)y = make_float4(v[0], v[1], v[2], v[3]);
    else
        for (int j = 0; j < 4 && j < n; j++)
            y[j] = v[j];
}

/* Products v of columns c .. c+3 of step row r. */
__device__ __forceinline__ void finish_quad(const struct matmul_out &o, int r, int c, float v[4])
{
    float *y = (float *)o.y + (size_t)r * o.ldy + c;
    if (o.end == END_RESIDUAL) {
        float gate = o.gate ? o.gate[r] : 1.0f;
        for (int j = 0; j < 4; j++)
            v[j] = c + j < o.n ? y[j] + gate * v[j] : 0;
    }
    put_values(y, v, o.n - c, o.wide);
    for (int j = 0; o.fan && j < 4 && c + j < o.n; j++)
        for (int g = 0; g < o.fan_group; g++)
            ((float *)o.fan)[(size_t)r * o.n * o.fan_group + ((c + j) / o.hd * o.fan_group + g) * o.hd + (c + j) % o.hd] = v[j];
}

/* v: the thread's products of row r, four of columns c .. c+3 and four of c+8 .. c+11. */
__device__ __forceinline__ void finish_row(const struct f32_args &a, int r, int c, float v[8])
{
    for (int j = 0; j < 8; j++) {
        int at = c + j % 4 + j / 4 * 8;
        v[j] += a.out.bias && at < a.w_rows ? a.out.bias[at] : 0.0f;
    }
    if (a.out.end == END_SWIGLU) {
        int f = c / 16 * 8 + c % 8;
        for (int j = 0; j < 4; j++)
            v[j] = portable_silu(v[j]) * v[4 + j];
        put_values((float *)a.out.y + (size_t)r * a.out.ldy + f, v, a.out.n - f, a.out.wide);
        return;
    }
    finish_quad(a.out, r, c, v);
    finish_quad(a.out, r, c + 8, v + 4);
}

/* ---- the product ---- */

template <int TM> struct tile_smem {
    float x[2][BK][16 * TM + 4], w[2][BK][W_LD];
};

template <int TM>
__device__ __forceinline__ void multiply_tile(float (&acc)[TM][8], const struct tile_smem<TM> &s, int buffer, int tx, int ty)
{
    const int QUADS = (TM + 3) / 4;
#pragma unroll
    for (int kk = 0; kk < BK; kk++) {
        float xv[QUADS * 4], wv[8];
        if (TM >= 4) {
#pragma unroll
            for (int q = 0; q < QUADS; q++)
                *(float4 *)(xv + 4 * q) = *(const float4 *)&s.x[buffer][kk][q * 64 + ty * 4];
        } else {
#pragma unroll
            for (int i = 0; i < TM; i++)
                xv[i] = s.x[buffer][kk][ty * TM + i];
        }
        *(float4 *)wv = *(const float4 *)&s.w[buffer][kk][tx * 4];
        *(float4 *)(wv + 4) = *(const float4 *)&s.w[buffer][kk][64 + tx * 4];
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < 8; j++)
                acc[i][j] = fmaf(xv[i], wv[j], acc[i][j]);
    }
}

/* Row i of a thread's TM, within the tile. */
template <int TM> __device__ __forceinline__ int tile_row(int ty, int i)
{
    return TM >= 4 ? i / 4 * 64 + ty * 4 + i % 4 : ty * TM + i;
}

/* WHOLE: k is a multiple of BK and rows of x are quads, so that nothing has to be asked; rows and columns beyond the last are then read as the last. */
template <int TM, bool WHOLE> __global__ void __launch_bounds__(THREADS, 2) matmul_tile(const __grid_constant__ struct f32_args a)
{
    __shared__ __align__(16) struct tile_smem<TM> s;
    const int BM = 16 * TM;
    int m = rows_count(a.out.rows), m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
    if (m0 >= m)
        return;
    /* A warp has 8 x 4 threads of the tile. */
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, tx = warp % 2 * 8 + lane % 8, ty = warp / 2 * 4 + lane / 8;
    int row = threadIdx.x / 2, i0 = threadIdx.x % 2 * 4;
    bool has_x = row < BM;
    bool real_x = has_x && (WHOLE || m0 + row < m), real_w = WHOLE || n0 + row < a.w_rows;
    const float *x = real_x ? a.x + (size_t)row_at(a.out.rows, min(m0 + row, m - 1)) * a.ldx : NULL;
    const float *w = real_w ? a.w + (size_t)min(n0 + row, a.w_rows - 1) * a.ldw : NULL;
    int place = column_place(row);
    float acc[TM][8] = {};
    float4 next_x = load_quad<WHOLE>(x, i0, a.k, a.quads), next_w = load_quad<WHOLE>(w, i0, a.k, true);
    for (int k0 = 0, buffer = 0; k0 < a.k; k0 += BK, buffer ^= 1) {
        if (has_x)
            put_quad(s.x[buffer], i0, row, next_x);
        put_quad(s.w[buffer], i0, place, next_w);
        __syncthreads();                                         /* the tile is whole, and everyone is done with the one before the last */
        int ahead = WHOLE && k0 + BK == a.k ? i0 : k0 + BK + i0; /* behind the last tile: anything */
        next_x = load_quad<WHOLE>(x, ahead, a.k, a.quads);
        next_w = load_quad<WHOLE>(w, ahead, a.k, true);
        multiply_tile<TM>(acc, s, buffer, tx, ty);
    }
    int c = n0 + tx / 2 * 16 + tx % 2 * 4;
#pragma unroll
    for (int i = 0; i < TM; i++) {
        int at = m0 + tile_row<TM>(ty, i);
        if (at < m)
            finish_row(a, row_at(a.out.rows, at), c, acc[i]);
    }
}

template <int TM, bool WHOLE> static void start(struct cuda_ctx *c, const struct f32_args &a)
{
    dim3 grid(div_up(a.w_rows, BN), div_up(a.out.rows.n_max, 16 * TM));
    matmul_tile<TM, WHOLE><<<grid, THREADS, 0, c->stream>>>(a);
}

/* The largest tiles that still leave every multiprocessor two. */
int matmul_f32(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    bool quads = (uintptr_t)in->x % 16 == 0 && in->ldx % 4 == 0;
    struct f32_args a = {(const float *)in->x, (const float *)w->data, in->ldx, w->ld, w->rows, w->k, quads, *out};
    int columns = div_up(w->rows, BN), rows = out->rows.n_max;
    bool whole = quads && w->k % BK == 0;
    if (quads && rows <= FEW_F32_ROWS)
        return matmul_few_f32(c, in, w, out);
    if (div_up(rows, 128) * columns >= 2 * c->n_sm)
        whole ? start<8, true>(c, a) : start<8, false>(c, a);
    else if (div_up(rows, 64) * columns >= 2 * c->n_sm)
        whole ? start<4, true>(c, a) : start<4, false>(c, a);
    else
        whole ? start<2, true>(c, a) : start<2, false>(c, a);
    return launched(&c->k, "matmul_f32");
}
