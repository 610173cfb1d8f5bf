/* Matmul by fused multiply-adds in f32 where the compute type has 16 bits: level simt, and arrays that do not start or go on at multiples of 16 bytes.
 *
 * A block computes 64 rows and 128 columns, a thread 4 rows and 8 columns: four of a group of 8 and the same four of the next, so
 * that a thread holds gate and up of the same outputs. */
#include "kernels/cuda/matmul.cuh"

enum { BM = 64, BN = 128, BK = 16, THREADS = 256 };

struct simt_args {
    const void *x, *w;
    int ldx, ldw, w_rows, k;
    struct matmul_out out;
};

template <typename TX, typename TW>
__device__ static void load_tiles(const struct simt_args &a, float (*xs)[BM + 4], float (*ws)[BN + 4], int m0, int n0, int k0, int m)
{
    for (int i = threadIdx.x; i < BM * BK; i += THREADS) {
        int r = m0 + i / BK, c = k0 + i % BK;
        xs[i % BK][i / BK] = r < m && c < a.k ? to_f32(((const TX *)a.x)[(size_t)row_at(a.out.rows, r) * a.ldx + c]) : 0;
    }
    for (int i = threadIdx.x; i < BN * BK; i += THREADS) {
        int r = n0 + i / BK, c = k0 + i % BK;
        ws[i % BK][i / BK] = r < a.w_rows && c < a.k ? to_f32(((const TW *)a.w)[(size_t)r * a.ldw + c]) : 0;
    }
}

/* One product v of packed column c, biased; `up` is the product of the column 8 further (SWIGLU). */
template <typename TY> __device__ static void finish(const struct matmul_out &o, int r, int c, float v, float up)
{
    if (o.end == END_SWIGLU) {
        int f = c / 16 * 8 + c % 8;
        if (c % 16 < 8 && f < o.n)
            ((TY *)o.y)[(size_t)r * o.ldy + f] = from_f32<TY>(silu(v) * up);
        return;
    }
    if (c >= o.n)
        return;
    size_t at = (size_t)r * o.ldy + c;
    if (o.end == END_ACT || (o.end == END_F32 && o.fan)) {
        ((TY *)o.y)[at] = from_f32<TY>(v);
        for (int g = 0; o.fan && g < o.fan_group; g++)
            ((TY *)o.fan)[((size_t)r * o.n * o.fan_group) + (c / o.hd * o.fan_group + g) * o.hd + c % o.hd] = from_f32<TY>(v);
    } else if (o.end == END_F32)
        ((float *)o.y)[at] = v;
    else
        ((float *)o.y)[at] += (o.gate ? o.gate[r] : 1.0f) * v;
}

template <typename TX, typename TW, typename TY> __global__ void __launch_bounds__(THREADS) matmul_tile(struct simt_args a)
{
    __shared__ float xs[BK][BM + 4], ws[BK][BN + 4];
    int m = rows_count(a.out.rows), m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
    if (m0 >= m)
        return;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, col = tx / 2 * 16 + tx % 2 * 4;
    float acc[4][8] = {};
    for (int k0 = 0; k0 < a.k; k0 += BK) {
        load_tiles<TX, TW>(a, xs, ws, m0, n0, k0, m);
        __syncthreads();
#pragma unroll
        for (int kk = 0; kk < BK; kk++) {
            float4 x = *(const float4 *)&xs[kk][ty * 4], lo = *(const float4 *)&ws[kk][col], hi = *(const float4 *)&ws[kk][col + 8];
            float xv[4] = {x.x, x.y, x.z, x.w}, wv[8] = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 8; j++)
                    acc[i][j] = fmaf(xv[i], wv[j], acc[i][j]);
        }
        __syncthreads();
    }
    for (int i = 0; i < 4; i++) {
        int row = m0 + ty * 4 + i;
        if (row >= m)
            break;
        int r = row_at(a.out.rows, row);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            int c = n0 + col + (j / 4) * 8 + j % 4;
            float b = a.out.bias && c < a.w_rows ? a.out.bias[c] : 0, b_up = a.out.bias && c + 8 < a.w_rows ? a.out.bias[c + 8] : 0;
            finish<TY>(a.out, r, c, acc[i][j] + b, acc[i][(j + 4) % 8] + b_up);
        }
    }
}

int matmul_simt(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    struct simt_args a = {in->x, w->data, in->ldx, w->ld, w->rows, w->k, *out};
    dim3 grid(div_up(w->rows, BN), div_up(out->rows.n_max, BM));
    if (w->kind == MATRIX_ACCURATE)
        matmul_tile<float, float, float><<<grid, THREADS, 0, c->stream>>>(a);
    else if (c->k.act == DTYPE_BF16)
        matmul_tile<__nv_bfloat16, __nv_bfloat16, __nv_bfloat16><<<grid, THREADS, 0, c->stream>>>(a);
    else
        matmul_tile<__half, __half, __half><<<grid, THREADS, 0, c->stream>>>(a);
    return launched(&c->k, "matmul_simt");
}
