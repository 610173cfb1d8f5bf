/* Float32 products by warp matrix products (high.cuh has the idea): a block computes 64 rows and 96 columns, each of four warps 32 by 48. Both terms of the next 64
 * columns of x and of the weights come while those in shared memory are multiplied. */
#include "kernels/cuda/high.cuh"
#include "kernels/cuda/mma.cuh"

enum {
    THREADS = 128,
    BM = 64,
    BN = 96,
    WARP_M = 32,
    WARP_N = 48,
    X_BYTES = BM * 128, /* of a term */
    W_BYTES = BN * 128,
    STAGE_BYTES = 2 * (X_BYTES + W_BYTES),
    SMEM_BYTES = 2 * STAGE_BYTES
};

struct high_mma_args {
    struct high_args h;
    const __half *x, *w; /* terms */
};

/* Columns k0 .. of both terms of `count` rows; those at or beyond `end` are zeros. */
__device__ __forceinline__ void fetch_terms(uint32_t dst, const __half *src, int ld, int row0, int count, int end, int k0)
{
    for (int i = threadIdx.x; i < 2 * count * 8; i += THREADS) {
        int term = i / (count * 8), row = i / 8 % count, chunk = i % 8;
        bool valid = row0 + row < end;
        copy16(dst + (term * count + row) * 128 + (chunk ^ row % 8) * 16,
               valid ? src + ((size_t)(row0 + row) * 2 + term) * ld + k0 + chunk * 8 : src, valid);
    }
}

__device__ __forceinline__ void fetch_block(const struct high_mma_args &a, uint32_t stage, int m0, int n0, int m, int k0)
{
    fetch_terms(stage, a.x, a.h.term_ld, m0, BM, m, k0);
    fetch_terms(stage + 2 * X_BYTES, a.w, a.h.term_ld, n0, BN, a.h.t.rows, k0);
}

/* part = 16 rows of x, from row x_row of the stage on, times WARP_N columns of the weights. */
__device__ __forceinline__ void multiply_block(float (&part)[WARP_N / 2], uint32_t stage, int x_row, int w_row)
{
    int lane = threadIdx.x % 32;
    x_row += lane % 16;
    w_row += lane / 16 * 8 + lane % 8;
    uint32_t x = stage + x_row * 128, w = stage + 2 * X_BYTES + w_row * 128;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        uint32_t x_lo[4], x_hi[4], w_lo[WARP_N / 16][4], w_hi[WARP_N / 16][4];
        int x_chunk = ((step * 2 + lane / 16) ^ x_row % 8) * 16, w_chunk = ((step * 2 + lane / 8 % 2) ^ w_row % 8) * 16;
        ldmatrix(x_lo, x + x_chunk);
        ldmatrix(x_hi, x + X_BYTES + x_chunk);
#pragma unroll
        for (int j = 0; j < WARP_N / 16; j++) {
            ldmatrix(w_lo[j], w + j * 16 * 128 + w_chunk);
            ldmatrix(w_hi[j], w + W_BYTES + j * 16 * 128 + w_chunk);
        }
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
            mma<__half>(&part[j * 4], x_lo, w_hi[j / 2][j % 2 * 2], w_hi[j / 2][j % 2 * 2 + 1]);
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
            mma<__half>(&part[j * 4], x_hi, w_lo[j / 2][j % 2 * 2], w_lo[j / 2][j % 2 * 2 + 1]);
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++)
            mma<__half>(&part[j * 4], x_hi, w_hi[j / 2][j % 2 * 2], w_hi[j / 2][j % 2 * 2 + 1]);
    }
}

__global__ static void __launch_bounds__(THREADS, 2) matmul_high_mma_tile(const __grid_constant__ struct high_mma_args a)
{
    extern __shared__ __align__(1024) char smem[];
    int m = rows_count(a.h.t.out.rows), warp = threadIdx.x / 32, tm, tn;
    struct tile_order order = {(m + BM - 1) / BM, (a.h.t.rows + BN - 1) / BN};
    if (blockIdx.x >= order.m_tiles * order.n_tiles)
        return;
    order.at(blockIdx.x, &tm, &tn);
    uint32_t tiles = smem_address(smem);
    int row = warp / 2 * WARP_M, col = warp % 2 * WARP_N, n = a.h.term_ld / HIGH_K;
    float acc[2][WARP_N / 2] = {};
    fetch_block(a, tiles, tm * BM, tn * BN, m, 0);
    copy_commit();
    for (int b = 0; b < n; b++) {
        copy_wait<0>();
        __syncthreads(); /* block b has come, and everyone is done with the one before it */
        if (b + 1 < n)
            fetch_block(a, tiles + (b + 1) % 2 * STAGE_BYTES, tm * BM, tn * BN, m, (b + 1) * HIGH_K);
        copy_commit();
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float part[WARP_N / 2] = {};
            multiply_block(part, tiles + b % 2 * STAGE_BYTES, row + i * 16, col);
#pragma unroll
            for (int j = 0; j < WARP_N / 2; j++)
                acc[i][j] += part[j];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++)
        write_high<WARP_N>(a.h, acc[i], (float *)(smem + warp * STAGING_BYTES), tm * BM + row + i * 16, m, tn * BN + col);
}

int matmul_high_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    struct high_terms x;
    int r = high_split(c, in, w->k, out->rows, &x);
    if (r >= 0)
        r = cuda_allow_shared(c, (const void *)matmul_high_mma_tile, SMEM_BYTES);
    if (r < 0)
        return r;
    struct high_mma_args a = {{{w->k, w->rows, *out}, x.unscale, w->unscale, w->term_ld}, x.terms, (const __half *)w->terms};
    matmul_high_mma_tile<<<div_up(out->rows.n_max, BM) * div_up(w->rows, BN), THREADS, SMEM_BYTES, c->stream>>>(a);
    return launched(&c->k, "matmul_high_mma");
}
