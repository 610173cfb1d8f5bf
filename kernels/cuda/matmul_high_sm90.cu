/* Float32 products on Hopper's tensor cores (high.cuh has the idea), in the form of matmul_sm90.cuh: a stage has both terms of 64 columns of x and of the weights.
 * While one warpgroup adds its sums of 64 columns, the other's products run. */
#include "kernels/cuda/high.cuh"
#include "kernels/cuda/matmul_sm90.cuh"

/* Each operand's terms side by side, the smaller first. */
template <int WGS, int BN, int STAGES> struct high_shape {
    enum {
        BM = 64 * WGS,
        THREADS = 128 * (WGS + 1),
        X_BYTES = BM * TILE_K_BYTES, /* of a term */
        W_BYTES = BN * TILE_K_BYTES,
        STAGE_BYTES = 2 * (X_BYTES + W_BYTES),
        W_BOX = BN % 64 ? 32 : 64,
        SMEM_BYTES = 1024 + STAGES * STAGE_BYTES + WGS * 4 * STAGING_BYTES + 2 * STAGES * 8
    };
};

#if HAVE_SM90

/* One thread: every k block of every tile of this block, as stages get free. */
template <int WGS, int BN, int STAGES>
__device__ __forceinline__ void feed(const CUtensorMap *mx, const CUtensorMap *mw, const struct high_args &a, struct tile_order order,
                                     uint32_t tiles, uint32_t full, uint32_t empty)
{
    typedef high_shape<WGS, BN, STAGES> S;
    ring<STAGES> at;
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        for (int k0 = 0; k0 < a.term_ld; k0 += HIGH_K, at.next()) {
            uint32_t bar = full + at.stage * 8, x = tiles + at.stage * S::STAGE_BYTES, w = x + 2 * S::X_BYTES;
            barrier_wait(empty + at.stage * 8, at.phase ^ 1);
            barrier_expect(bar, S::STAGE_BYTES);
            for (int term = 0; term < 2; term++) {
                for (int i = 0; i < WGS; i++)
                    tma_load(x + term * S::X_BYTES + i * 64 * TILE_K_BYTES, mx, term * a.term_ld + k0, tm * S::BM + i * 64, bar);
                for (int i = 0; i < BN / S::W_BOX; i++)
                    tma_load(w + term * S::W_BYTES + i * S::W_BOX * TILE_K_BYTES, mw, term * a.term_ld + k0, tn * BN + i * S::W_BOX, bar);
            }
        }
    }
}

/* part = 64 rows of x times BN columns of the weights, HIGH_K deep. x, w: the smaller terms; the larger lie x_bytes and w_bytes further. */
template <int BN> __device__ __forceinline__ void multiply(float (&part)[BN / 2], uint32_t x, int x_bytes, uint32_t w, int w_bytes)
{
    uint64_t x_lo = tile_k_major(x), x_hi = tile_k_major(x + x_bytes), w_lo = tile_k_major(w), w_hi = tile_k_major(w + w_bytes);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++)
        wgmma<__half, BN>::ss(part, x_lo + i * 2, w_hi + i * 2, i > 0);
#pragma unroll
    for (int i = 0; i < 4; i++)
        wgmma<__half, BN>::ss(part, x_hi + i * 2, w_lo + i * 2, 1);
#pragma unroll
    for (int i = 0; i < 4; i++)
        wgmma<__half, BN>::ss(part, x_hi + i * 2, w_hi + i * 2, 1);
    wgmma_commit();
}

/* One warpgroup: 64 rows of each tile. */
template <int WGS, int BN, int STAGES>
__device__ __forceinline__ void compute(const struct high_args &a, struct tile_order order, int m, uint32_t tiles, uint32_t full,
                                        uint32_t empty, char *staging)
{
    typedef high_shape<WGS, BN, STAGES> S;
    int wg = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    float *stage = (float *)(staging + (wg * 4 + warp) * STAGING_BYTES);
    ring<STAGES> at;
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        float acc[BN / 2] = {}, part[BN / 2];
        order.at(t, &tm, &tn);
        for (int k0 = 0; k0 < a.term_ld; k0 += HIGH_K, at.next()) {
            uint32_t x = tiles + at.stage * S::STAGE_BYTES;
            barrier_wait(full + at.stage * 8, at.phase);
            multiply<BN>(part, x + wg * 64 * TILE_K_BYTES, S::X_BYTES, x + 2 * S::X_BYTES, S::W_BYTES);
            wgmma_wait<0>();
            if (threadIdx.x % 128 == 0)
                barrier_arrive(empty + at.stage * 8);
#pragma unroll
            for (int i = 0; i < BN / 2; i++) {
                asm volatile("" : "+f"(part[i])::"memory");
                acc[i] += part[i];
            }
        }
        write_high<BN>(a, acc, stage, tm * S::BM + wg * 64 + warp * 16, m, tn * BN);
    }
}

#endif

template <int WGS, int BN, int STAGES>
__global__ static void __launch_bounds__(128 * (WGS + 1), 1)
    matmul_high_tiles(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
                      const __grid_constant__ struct high_args a)
{
#if HAVE_SM90
    typedef high_shape<WGS, BN, STAGES> S;
    extern __shared__ char raw[];
    uint32_t tiles = (smem_address(raw) + 1023) & ~1023u, staging = tiles + STAGES * S::STAGE_BYTES;
    uint32_t full = staging + WGS * 4 * STAGING_BYTES, empty = full + STAGES * 8;
    int m = rows_count(a.t.out.rows);
    struct tile_order order = {(m + S::BM - 1) / S::BM, (a.t.rows + BN - 1) / BN};
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + i * 8, 1);
            barrier_init(empty + i * 8, WGS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_lower<40>();
        if (threadIdx.x == 0)
            feed<WGS, BN, STAGES>(&mx, &mw, a, order, tiles, full, empty);
    } else {
        registers_raise<232>();
        compute<WGS, BN, STAGES>(a, order, m, tiles, full, empty, raw + (staging - smem_address(raw)));
    }
#endif
}

template <int WGS, int BN, int STAGES>
static int start(struct cuda_ctx *c, const struct high_terms &x, const struct kern_matrix *w, const struct matmul_out *out)
{
    typedef high_shape<WGS, BN, STAGES> S;
    auto kernel = matmul_high_tiles<WGS, BN, STAGES>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    CUtensorMap mx;
    r = tensor_map(c, &mx, DTYPE_F16, x.terms, out->rows.n_max, 2 * w->term_ld, 2 * w->term_ld, 64);
    if (r < 0)
        return r;
    struct high_args a = {{w->k, w->rows, *out}, x.unscale, w->unscale, w->term_ld};
    int n_tiles = div_up(out->rows.n_max, S::BM) * div_up(w->rows, BN), blocks = n_tiles < c->n_sm ? n_tiles : c->n_sm;
    kernel<<<blocks, S::THREADS, S::SMEM_BYTES, c->stream>>>(mx, S::W_BOX == 32 ? w->box32 : w->box64, a);
    return launched(&c->k, "matmul_high_sm90");
}

/* Time of all tiles of a width, in columns: whole waves, and what a tile costs beside its products. */
static int waves_cost(struct cuda_ctx *c, int m, int n, int bn)
{
    return div_up(div_up(m, 128) * div_up(n, bn), c->n_sm) * (bn + 24);
}

int matmul_high_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    struct high_terms x;
    int m = out->rows.n_max, r = high_split(c, in, w->k, out->rows, &x);
    if (r < 0)
        return r;
    if (m <= 64)
        return div_up(w->rows, 64) < c->n_sm ? start<1, 32, 8>(c, x, w, out) : start<1, 64, 6>(c, x, w, out);
    return waves_cost(c, m, w->rows, 64) < waves_cost(c, m, w->rows, 128) ? start<2, 64, 4>(c, x, w, out) : start<2, 128, 3>(c, x, w, out);
}
