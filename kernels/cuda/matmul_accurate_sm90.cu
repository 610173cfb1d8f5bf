/* Float32-accurate matmul on bf16 tensor cores: x (f32) is split in registers into three bf16 terms, the weights at load into as many as
 * they need (one where they were stored as bf16). Products of terms i and j (0 the largest) with i + j < 3 are added; what is left out
 * is below 2^-24 of the product. Weight terms run from the smallest to the largest, so small sums come first. Tensor cores cut off what an
 * accumulator cannot hold, where float32 would round: so they sum 64 columns only, and those sums are added in plain float32. */
#include "kernels/cuda/matmul_sm90.cuh"
#include "kernels/cuda/terms.cuh"

enum { ACC_WGS = 2, ACC_BN = 96, ACC_STAGES = 4, ACC_BM = 64 * ACC_WGS };
static constexpr int X_BYTES = ACC_BM * 64 * 4;   /* two boxes of 32 columns a warpgroup */
static constexpr int ACC_STAGE_BYTES = X_BYTES + ACC_BN * 128, 
                     ACC_SMEM_BYTES = 1024 + ACC_STAGES * (ACC_STAGE_BYTES + 16) + ACC_WGS * 4 * STAGING_BYTES;

struct accurate_args {
    struct tile_args a;
    int n_terms, term_ld;
};

#if HAVE_SM90

__device__ static void feed_accurate(const CUtensorMap *mx, const CUtensorMap *mw, const struct accurate_args &p, struct tile_order order,
                                     uint32_t tiles, uint32_t full, uint32_t empty)
{
    ring<ACC_STAGES> at;
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        for (int k0 = 0; k0 < p.n_terms * p.term_ld; k0 += TILE_K, at.next()) {
            uint32_t bar = full + at.stage * 8, dst = tiles + at.stage * ACC_STAGE_BYTES;
            barrier_wait(empty + at.stage * 8, at.phase ^ 1);
            barrier_expect(bar, ACC_STAGE_BYTES);
            for (int i = 0; i < 2 * ACC_WGS; i++)
                tma_load(dst + i * 64 * 128, mx, k0 % p.term_ld + i % 2 * 32, tm * ACC_BM + i / 2 * 64, bar);
            for (int i = 0; i < ACC_BN / 32; i++)
                tma_load(dst + X_BYTES + i * 32 * 128, mw, k0, tn * ACC_BN + i * 32, bar);
        }
    }
}

/* A thread's share of 64 columns of x as operands, largest term first. */
struct x_terms {
    uint32_t t[4][3][4];
    __device__ __forceinline__ void split(const char *x)
    {
        int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float2 v[4];
            load_x<64>(v, x, warp * 16 + lane / 4, i * 16 + lane % 4 * 2);
#pragma unroll
            for (int j = 0; j < 3; j++)
                take_term(t[i][j], v);
        }
    }
};

/* Starts part = the N largest terms of x times the weights at `w`, smallest first. */
template <int N> __device__ __forceinline__ void multiply_terms(float (&part)[ACC_BN / 2], const struct x_terms &x, uint32_t w)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = N - 1; j >= 0; j--)
            wgmma<__nv_bfloat16, ACC_BN>::rs<0>(part, x.t[i][j], tile_k_major(w) + i * 2, i > 0 || j < N - 1);
    wgmma_commit();
}

/* These registers are not overwritten before the wait that came before. */
__device__ __forceinline__ void terms_ready(struct x_terms &x)
{
#pragma unroll
    for (int i = 0; i < 48; i++)
        asm volatile("" : "+r"(x.t[i / 12][i / 4 % 3][i % 4])::"memory");
}

/* The product that was waited for joins the sum. */
__device__ __forceinline__ void add_part(float (&acc)[ACC_BN / 2], float (&part)[ACC_BN / 2], bool first)
{
#pragma unroll
    for (int i = 0; i < ACC_BN / 2; i++) {
        asm volatile("" : "+f"(part[i])::"memory");
        acc[i] = first ? part[i] : acc[i] + part[i];
    }
}

struct accurate_smem {
    const char *x;             /* the first stage */
    uint32_t tiles, full, empty;
    __device__ __forceinline__ const char *x_at(int stage) const { return x + stage * ACC_STAGE_BYTES + (threadIdx.x / 128 - 1) * 2 * 64 * 128; }
    __device__ __forceinline__ uint32_t weights_at(int stage) const { return tiles + stage * ACC_STAGE_BYTES + X_BYTES; }
    __device__ __forceinline__ void leave(int stage) const
    {
        if (threadIdx.x % 128 == 0)
            barrier_arrive(empty + stage * 8);
    }
};

/* Weights of one term: the next columns of x are split while the present ones are multiplied. */
__device__ __forceinline__ void compute_tile_one_term(float (&acc)[ACC_BN / 2], const struct accurate_smem &m, ring<ACC_STAGES> *at, int blocks)
{
    struct x_terms now, next = {};
    float part[ACC_BN / 2];
    barrier_wait(m.full + at->stage * 8, at->phase);
    now.split(m.x_at(at->stage));
    for (int b = 0; b < blocks; b++) {
        int stage = at->stage;
        multiply_terms<3>(part, now, m.weights_at(stage));
        at->next();
        if (b + 1 < blocks) {
            barrier_wait(m.full + at->stage * 8, at->phase);
            next.split(m.x_at(at->stage));
        }
        terms_ready(next);   /* split before the wait, beside the product */
        wgmma_wait<0>();
        terms_ready(now);
        add_part(acc, part, b == 0);
        m.leave(stage);
        now = next;
    }
}

__device__ __forceinline__ void compute_tile_terms(float (&acc)[ACC_BN / 2], const struct accurate_smem &m, ring<ACC_STAGES> *at, int blocks, int n_terms)
{
    struct x_terms x;
    float part[ACC_BN / 2];
    for (int b = 0; b < blocks * n_terms; b++, at->next()) {
        int missing = n_terms - 1 - b / blocks;   /* terms of x that are too small beside this term of the weights */
        barrier_wait(m.full + at->stage * 8, at->phase);
        x.split(m.x_at(at->stage));
        if (missing == 0)
            multiply_terms<3>(part, x, m.weights_at(at->stage));
        else if (missing == 1)
            multiply_terms<2>(part, x, m.weights_at(at->stage));
        else
            multiply_terms<1>(part, x, m.weights_at(at->stage));
        wgmma_wait<0>();
        terms_ready(x);
        add_part(acc, part, b == 0);
        m.leave(at->stage);
    }
}

__device__ static void compute_accurate(const struct accurate_args &p, struct tile_order order, int m, const struct accurate_smem &smem, char *staging)
{
    int wg = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, blocks = p.term_ld / TILE_K;
    ring<ACC_STAGES> at;
    float acc[ACC_BN / 2], *stage = (float *)(staging + (wg * 4 + warp) * STAGING_BYTES);
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        if (p.n_terms == 1)
            compute_tile_one_term(acc, smem, &at, blocks);
        else
            compute_tile_terms(acc, smem, &at, blocks, p.n_terms);
        write_f32<ACC_BN>(p.a, acc, stage, out_rows(p.a.out, tm * ACC_BM + wg * 64 + warp * 16, m), tn * ACC_BN);
    }
}

#endif

__global__ static void __launch_bounds__(128 * (ACC_WGS + 1), 1)
    matmul_accurate_tiles(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw, const struct accurate_args p)
{
#if HAVE_SM90
    extern __shared__ char raw[];
    uint32_t tiles = (smem_address(raw) + 1023) & ~1023u, staging = tiles + ACC_STAGES * ACC_STAGE_BYTES;
    uint32_t full = staging + ACC_WGS * 4 * STAGING_BYTES, empty = full + ACC_STAGES * 8;
    int m = rows_count(p.a.out.rows);
    struct tile_order order = {(m + ACC_BM - 1) / ACC_BM, (p.a.rows + ACC_BN - 1) / ACC_BN};
    if (threadIdx.x == 0) {
        for (int i = 0; i < ACC_STAGES; i++) {
            barrier_init(full + i * 8, 1);
            barrier_init(empty + i * 8, ACC_WGS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_lower<40>();
        if (threadIdx.x == 0)
            feed_accurate(&mx, &mw, p, order, tiles, full, empty);
    } else {
        registers_raise<232>();
        struct accurate_smem smem = {raw + (tiles - smem_address(raw)), tiles, full, empty};
        compute_accurate(p, order, m, smem, raw + (staging - smem_address(raw)));
    }
#endif
}

int matmul_accurate_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    static bool ready;
    int r = ready ? 0 : CU(c, cudaFuncSetAttribute(matmul_accurate_tiles, cudaFuncAttributeMaxDynamicSharedMemorySize, ACC_SMEM_BYTES));
    if (r < 0)
        return r;
    ready = true;
    CUtensorMap mx;
    r = tensor_map(c, &mx, DTYPE_F32, in->x, out->rows.n_max, w->k, in->ldx, 64);
    if (r < 0)
        return r;
    struct accurate_args p = {{w->k, w->rows, *out}, w->n_terms, w->term_ld};
    int n_tiles = div_up(out->rows.n_max, ACC_BM) * div_up(w->rows, ACC_BN);
    matmul_accurate_tiles<<<n_tiles < c->n_sm ? n_tiles : c->n_sm, 128 * (ACC_WGS + 1), ACC_SMEM_BYTES, c->stream>>>(mx, w->box32, p);
    return launched(&c->k, "matmul_accurate_sm90");
}
