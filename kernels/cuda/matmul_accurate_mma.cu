/* Float32-accurate matmul by warp matrix products on bf16: x (f32) is split in registers into three bf16 terms, the weights at load into as many as they
 * need (one where they were stored as bf16). Products of terms i and j (0 the largest) with i + j < 3 are added; what is left out is below 2^-24 of the
 * product. Weight terms run from the smallest to the largest, so small sums come first. Tensor cores sum 64 columns only, and those sums are added in
 * plain float32, as in matmul_accurate_sm90.cu. */
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/cuda/terms.cuh"

/* Four warps of 32 rows, each over all columns of the tile, so that x is split once; stages of 64 columns. */
enum {
    ACC_THREADS = 128,
    ACC_BM = 128,
    ACC_BN = 96,
    ACC_WARP_M = 32,
    ACC_STAGES = 2,
    ACC_BLOCKS = 2,
    X_BYTES = ACC_BM * 64 * 4, /* two panels of 32 columns */
    ACC_STAGE_BYTES = X_BYTES + ACC_BN * 128,
    ACC_SMEM_BYTES = ACC_STAGES * ACC_STAGE_BYTES
};

struct accurate_mma_args {
    struct tile_args t;
    const float *x;
    const __nv_bfloat16 *terms;
    int ldx, n_terms, term_ld;
};

/* Block b of the chain: columns of x, and of a term of the weights. */
__device__ __forceinline__ void feed_block(const struct accurate_mma_args &a, uint32_t stage, int b, int m0, int n0, int m)
{
    int blocks = a.term_ld / 64, x0 = b % blocks * 64, ldw = a.n_terms * a.term_ld;
    for (int i = threadIdx.x; i < ACC_BM * 16; i += ACC_THREADS) {
        int row = i / 16, chunk = i % 16, c = x0 + chunk * 4, left = a.t.k - c,
            bytes = m0 + row < m && left > 0 ? (left < 4 ? left : 4) * 4 : 0;
        const float *src = bytes ? a.x + (size_t)row_at(a.t.out.rows, m0 + row) * a.ldx + c : a.x;
        copy16_part(stage + chunk / 8 * ACC_BM * 128 + row * 128 + (chunk % 8 ^ row % 8) * 16, src, bytes);
    }
    for (int i = threadIdx.x; i < ACC_BN * 8; i += ACC_THREADS) {
        int row = i / 8, chunk = i % 8;
        bool valid = n0 + row < a.t.rows;
        copy16(stage + X_BYTES + row * 128 + (chunk ^ row % 8) * 16, a.terms + (valid ? (size_t)(n0 + row) * ldw + b * 64 + chunk * 8 : 0),
               valid);
    }
}

/* part = the `n` largest terms of 16 rows of x times the weights, smallest first. `row`: of this thread. */
__device__ __forceinline__ void multiply_block(float (&part)[ACC_BN / 2], const char *x, uint32_t w, int row, int n)
{
    int lane = threadIdx.x % 32, w_row = lane / 16 * 8 + lane % 8;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        float2 v[4];
        uint32_t t[3][4], b[ACC_BN / 16][4];
        load_x<ACC_BM>(v, x, row, step * 16 + lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < ACC_BN / 16; j++)
            ldmatrix(b[j], w + (w_row + j * 16) * 128 + ((step * 2 + lane / 8 % 2) ^ w_row % 8) * 16);
#pragma unroll
        for (int j = 0; j < 3; j++)
            take_term(t[j], v);
#pragma unroll
        for (int term = 2; term >= 0; term--)
            if (term < n)
#pragma unroll
                for (int j = 0; j < ACC_BN / 8; j++)
                    mma<__nv_bfloat16>(&part[j * 4], t[term], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
}

__global__ static void __launch_bounds__(ACC_THREADS, ACC_BLOCKS)
    matmul_accurate_mma_tile(const __grid_constant__ struct accurate_mma_args a)
{
    extern __shared__ __align__(1024) char smem[];
    int m = rows_count(a.t.out.rows), warp = threadIdx.x / 32, tm, tn;
    struct tile_order order = {(m + ACC_BM - 1) / ACC_BM, (a.t.rows + ACC_BN - 1) / ACC_BN};
    if (blockIdx.x >= order.m_tiles * order.n_tiles)
        return;
    order.at(blockIdx.x, &tm, &tn);
    uint32_t tiles = smem_address(smem);
    int blocks = a.term_ld / 64, n = blocks * a.n_terms;
    float acc[2][ACC_BN / 2] = {};
    feed_block(a, tiles, 0, tm * ACC_BM, tn * ACC_BN, m);
    copy_commit();
    for (int b = 0; b < n; b++) {
        copy_wait<0>();
        __syncthreads(); /* block b has come, and everyone is done with the one before it */
        if (b + 1 < n)
            feed_block(a, tiles + (b + 1) % 2 * ACC_STAGE_BYTES, b + 1, tm * ACC_BM, tn * ACC_BN, m);
        copy_commit();
        int stage = b % 2 * ACC_STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float part[ACC_BN / 2] = {}; /* without the terms too small beside this term of the weights */
            multiply_block(part, smem + stage, tiles + stage + X_BYTES, warp * ACC_WARP_M + i * 16 + threadIdx.x % 32 / 4,
                           4 - a.n_terms + b / blocks);
#pragma unroll
            for (int j = 0; j < ACC_BN / 2; j++)
                acc[i][j] += part[j];
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++)
        write_f32<ACC_BN>(a.t, acc[i], (float *)(smem + warp * STAGING_BYTES),
                          out_rows(a.t.out, tm * ACC_BM + warp * ACC_WARP_M + i * 16, m), tn * ACC_BN);
}

int matmul_accurate_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    int r = cuda_allow_shared(c, (const void *)matmul_accurate_mma_tile, ACC_SMEM_BYTES);
    if (r < 0)
        return r;
    struct accurate_mma_args a = {
        {w->k, w->rows, *out}, (const float *)in->x, (const __nv_bfloat16 *)w->terms, in->ldx, w->n_terms, w->term_ld};
    matmul_accurate_mma_tile<<<div_up(out->rows.n_max, ACC_BM) * div_up(w->rows, ACC_BN), ACC_THREADS, ACC_SMEM_BYTES, c->stream>>>(a);
    return launched(&c->k, "matmul_accurate_mma");
}
