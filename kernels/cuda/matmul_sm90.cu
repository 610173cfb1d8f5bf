/* Matmul of 16-bit activations and weights on Hopper: the kernel of matmul_sm90.cuh's design, and the choice of its tile. */
#include "kernels/cuda/matmul_rope.cuh"
#include "kernels/cuda/matmul_sm90.cuh"

/* Ends that have instances of their own, as a kernel that can do less is faster: PLAIN has all the others. */
enum ends { PLAIN, FAN, BLEND, ROPE_64 = 64, ROPE_128 = 128 }; /* ROPE: heads of so many columns */

#if HAVE_SM90

/* One thread: every k block of every tile of this block, as stages get free. */
template <int WGS, int BN, int STAGES>
__device__ __forceinline__ void feed(const CUtensorMap *ma, const CUtensorMap *mb, const struct tile_args &a, struct tile_order order,
                                     uint32_t tiles, uint32_t full, uint32_t empty)
{
    typedef sm90_shape<WGS, BN, STAGES> S;
    ring<STAGES> at;
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        for (int k0 = 0; k0 < a.k; k0 += TILE_K, at.next()) {
            uint32_t bar = full + at.stage * 8, dst = tiles + at.stage * S::STAGE_BYTES;
            barrier_wait(empty + at.stage * 8, at.phase ^ 1);
            barrier_expect(bar, S::STAGE_BYTES);
            for (int i = 0; i < WGS; i++)
                tma_load(dst + i * 64 * TILE_K_BYTES, ma, k0, tm * S::BM + i * 64, bar);
            for (int i = 0; i < BN / S::B_BOX; i++)
                tma_load(dst + S::A_BYTES + i * S::B_BOX * TILE_K_BYTES, mb, k0, tn * BN + i * S::B_BOX, bar);
        }
    }
}

/* One warpgroup: 64 rows of each tile. The second starts a few k blocks after the first and stays behind, so that each writes its results
 * while the other multiplies. */
template <typename T, int WGS, int BN, int STAGES, enum ends ENDS>
__device__ __forceinline__ void compute(const struct tile_args &a, struct tile_order order, int m, uint32_t tiles, uint32_t full,
                                        uint32_t empty, char *staging)
{
    typedef sm90_shape<WGS, BN, STAGES> S;
    int wg = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4;
    char *stage = staging + (wg * 4 + warp) * STAGING_BYTES;
    ring<STAGES> at;
    float acc[BN / 2];
    if (WGS == 2 && wg == 1 && blockIdx.x < order.m_tiles * order.n_tiles)
        named_sync(1, 256);
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn, before = -1;
        order.at(t, &tm, &tn);
        int row0 = tm * S::BM + wg * 64 + warp * 16;
        struct rope_lane<ENDS == ROPE_128 ? 128 : 64> turn;
        if constexpr (ENDS >= ROPE_64)
            turn.load(a.out.rope, row0, m);
        for (int k0 = 0; k0 < a.k; k0 += TILE_K, at.next()) {
            uint32_t x = tiles + at.stage * S::STAGE_BYTES, w = x + S::A_BYTES;
            barrier_wait(full + at.stage * 8, at.phase);
            uint64_t dx = tile_k_major(x + wg * 64 * TILE_K_BYTES), dw = tile_k_major(w);
            wgmma_fence();
#pragma unroll
            for (int i = 0; i < 4; i++)
                wgmma<T, BN>::ss(acc, dx + i * 2, dw + i * 2, k0 > 0 || i > 0);
            wgmma_commit();
            wgmma_wait<1>();
            if (before >= 0 && threadIdx.x % 128 == 0)
                barrier_arrive(empty + before * 8);
            before = at.stage;
            if (WGS == 2 && wg == 0 && t == blockIdx.x && (k0 == 2 * TILE_K || (a.k <= 2 * TILE_K && k0 == 0)))
                named_arrive(1, 256);
        }
        wgmma_wait<0>();
        if (threadIdx.x % 128 == 0)
            barrier_arrive(empty + before * 8);
        if constexpr (ENDS == BLEND)
            write_blend<BN>(a, acc, (float *)stage, out_rows(a.out, row0, m), row0, tn * BN);
        else if constexpr (ENDS >= ROPE_64)
            write_rope<T, BN, ENDS>(a, acc, turn, (T *)stage, row0, m, tn * BN);
        else
            write_tile<T, BN, ENDS == FAN>(a, acc, stage, row0, m, tn * BN);
    }
}

#endif

template <typename T, int WGS, int BN, int STAGES, enum ends ENDS>
__global__ void __launch_bounds__(128 * (WGS + 1), 1)
    matmul_sm90_tiles(const __grid_constant__ CUtensorMap ma, const __grid_constant__ CUtensorMap mb, const struct tile_args a)
{
#if HAVE_SM90
    typedef sm90_shape<WGS, BN, STAGES> S;
    extern __shared__ char raw[];
    uint32_t tiles = (smem_address(raw) + 1023) & ~1023u, staging = tiles + STAGES * S::STAGE_BYTES;
    uint32_t full = staging + WGS * 4 * STAGING_BYTES, empty = full + STAGES * 8;
    chain_start_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + i * 8, 1);
            barrier_init(empty + i * 8, WGS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    chain_wait();
    int m = rows_count(a.out.rows);
    struct tile_order order = {(m + S::BM - 1) / S::BM, (a.rows + BN - 1) / BN};
    if (threadIdx.x < 128) {
        registers_lower<40>();
        if (threadIdx.x == 0)
            feed<WGS, BN, STAGES>(&ma, &mb, a, order, tiles, full, empty);
    } else {
        registers_raise<232>();
        compute<T, WGS, BN, STAGES, ENDS>(a, order, m, tiles, full, empty, raw + (staging - smem_address(raw)));
    }
#endif
}

template <typename T, int WGS, int BN, int STAGES, enum ends ENDS = PLAIN>
static int start(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    typedef sm90_shape<WGS, BN, STAGES> S;
    auto kernel = matmul_sm90_tiles<T, WGS, BN, STAGES, ENDS>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    CUtensorMap ma;
    r = tensor_map(c, &ma, c->k.act, in->x, out->rows.n_max, w->k, in->ldx, 64);
    if (r < 0)
        return r;
    struct tile_args a = {w->k, w->rows, *out};
    int n_tiles = div_up(out->rows.n_max, S::BM) * div_up(w->rows, BN), blocks = n_tiles < c->n_sm ? n_tiles : c->n_sm;
    chain_launch(c, kernel, blocks, S::THREADS, S::SMEM_BYTES, ma, S::B_BOX == 32 ? w->box32 : w->box64, a);
    return launched(&c->k, "matmul_sm90");
}

/* Time of all tiles of a width, in columns: whole waves, and what a tile costs beside its products. */
static int waves_cost(struct cuda_ctx *c, int m, int n, int bn)
{
    return div_up(div_up(m, 128) * div_up(n, bn), c->n_sm) * (bn + 24);
}

/* Of tiles of so many columns those that take the least time; the wider of two that take the same. */
static int best_width(struct cuda_ctx *c, int m, int n)
{
    static const int narrower[] = {192, 160, 128};
    int best = 256;
    for (int bn : narrower)
        if (waves_cost(c, m, n, bn) < waves_cost(c, m, n, best))
            best = bn;
    return best;
}

/* As matmul_few_cost, of the tiles of 128 x 128 that are the other choice. */
static int wide_cost(struct cuda_ctx *c, int m, int n)
{
    return div_up(div_up(m, 128) * div_up(n, 128), c->n_sm) * (128 + 128);
}

/* Tiles of whole heads. */
template <typename T>
static int choose_rope(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    int m = out->rows.n_max, c256 = waves_cost(c, m, w->rows, 256);
    if (out->hd == 128)
        return waves_cost(c, m, w->rows, 128) < c256 ? start<T, 2, 128, 6, ROPE_128>(c, in, w, out)
                                                     : start<T, 2, 256, 4, ROPE_128>(c, in, w, out);
    return waves_cost(c, m, w->rows, 192) < c256 ? start<T, 2, 192, 5, ROPE_64>(c, in, w, out)
                                                 : start<T, 2, 256, 4, ROPE_64>(c, in, w, out);
}

template <typename T>
static int choose(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    int m = out->rows.n_max;
    if (out->rope.cos)
        return choose_rope<T>(c, in, w, out);
    if (m <= 64 || (m <= FEW_ROWS_MAX && matmul_few_cost(c, w, out) < wide_cost(c, m, w->rows)))
        return matmul_few_sm90(c, in, w, out, NULL);
    if (out->fan)
        return w->rows <= 512 ? start<T, 2, 64, 8, FAN>(c, in, w, out) : start<T, 2, 256, 4, FAN>(c, in, w, out);
    if (out->end == END_BLEND)
        return m <= FEW_ROWS_MAX                                                 ? start<T, 2, 128, 6, BLEND>(c, in, w, out)
               : waves_cost(c, m, w->rows, 192) < waves_cost(c, m, w->rows, 256) ? start<T, 2, 192, 5, BLEND>(c, in, w, out)
                                                                                 : start<T, 2, 256, 4, BLEND>(c, in, w, out);
    if ((out->rows.n_dev && out->rows.idx) || m <= FEW_ROWS_MAX) /* how many rows of a list there are is not known here: as a rule few */
        return start<T, 2, 128, 6>(c, in, w, out);
    switch (best_width(c, m, w->rows)) {
    case 128: return start<T, 2, 128, 6>(c, in, w, out);
    case 160: return start<T, 2, 160, 5>(c, in, w, out);
    case 192: return start<T, 2, 192, 5>(c, in, w, out);
    default: return start<T, 2, 256, 4>(c, in, w, out);
    }
}

int matmul_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, in, w, out) : choose<__half>(c, in, w, out);
}
