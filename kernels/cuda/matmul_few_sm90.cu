/* Matmul of few rows on Hopper. A decoding step reads all weights for the sake of few rows, so what counts is how much of them is under way and how soon: a block
 * is one tile of few columns, so that every multiprocessor reads, and it asks for its weights while kernels before it still run (chain.cuh), for the
 * rows once they are there. The products are those of matmul_sm90.cu in the same order: the same bits.
 *
 * wgmma takes 64 rows. Of fewer, only as many as there are come into shared memory; what it reads as the others is what lies behind them, and their products
 * are not written. */
#include "kernels/cuda/matmul_few_sm90.cuh"

enum { FEW_THREADS = FEW_COMPUTING + 64 }; /* one of a warp brings weights in, one of another rows */

/* XR rows of x (8, 32 or 64), BN columns. */
template <int XR, int BN> struct few_shape {
    enum {
        A_BYTES = XR * TILE_K_BYTES,
        STAGE_BYTES = A_BYTES + BN * TILE_K_BYTES,
        STAGES_MAX = 96 * 1024 / STAGE_BYTES, /* two blocks share a multiprocessor */
        ENDS_BYTES = 4 * STAGING_BYTES
    };
    static_assert(STAGE_BYTES % 1024 == 0, "tiles start at multiples of 1024 bytes");
    static_assert((64 - XR) * TILE_K_BYTES <= ENDS_BYTES + BN * TILE_K_BYTES, "64 rows from the last stage on are the block's memory");
    static int smem_bytes(int stages) { return 1024 + stages * (STAGE_BYTES + 16) + ENDS_BYTES; }
};

struct few_args {
    struct tile_args t;
    int stages; /* of the ring; all of k where that fits */
};

#if HAVE_SM90

struct few_smem {
    uint32_t tiles, full, empty;
};

__device__ __forceinline__ int few_blocks(const struct few_args &a)
{
    return (a.t.k + TILE_K - 1) / TILE_K;
}

/* A thread: its part of each k block, from block `from` on as stages get free. */
template <typename S>
__device__ __forceinline__ void feed_on(const CUtensorMap *map, const struct few_args &a, const struct few_smem &s, int from, int offset,
                                        int bytes, int row)
{
    struct few_ring at(a.stages);
    for (int i = 0; i < few_blocks(a); i++, at.next()) {
        if (i < from)
            continue;
        uint32_t bar = s.full + at.stage * 8;
        barrier_wait(s.empty + at.stage * 8, at.phase ^ 1);
        barrier_expect(bar, bytes);
        tma_load(s.tiles + at.stage * S::STAGE_BYTES + offset, map, i * TILE_K, row, bar);
    }
}

/* One thread: the weights. As many k blocks as the ring holds are asked for before the rows have been computed. */
template <int XR, int BN>
__device__ __forceinline__ void feed_weights(const CUtensorMap *map, const struct few_args &a, const struct few_smem &s, int n0)
{
    typedef few_shape<XR, BN> S;
    int first = few_blocks(a) < a.stages ? few_blocks(a) : a.stages;
    for (int i = 0; i < first; i++) {
        barrier_expect(s.full + i * 8, BN * TILE_K_BYTES);
        tma_load(s.tiles + i * S::STAGE_BYTES + S::A_BYTES, map, i * TILE_K, n0, s.full + i * 8);
    }
    chain_wait();
    if (rows_count(a.t.out.rows) > (int)blockIdx.y * 64)
        feed_on<S>(map, a, s, first, S::A_BYTES, BN * TILE_K_BYTES, n0);
    else /* nobody takes them; but they, and the first rows, must have come before the block's memory is another's */
        for (int i = 0; i < first; i++)
            barrier_wait(s.full + i * 8, 0);
}

/* One thread: the rows, once they have been computed. */
template <int XR, int BN>
__device__ __forceinline__ void feed_rows(const CUtensorMap *map, const struct few_args &a, const struct few_smem &s)
{
    typedef few_shape<XR, BN> S;
    int first = few_blocks(a) < a.stages ? few_blocks(a) : a.stages, m0 = blockIdx.y * 64;
    chain_wait();
    for (int i = 0; i < first; i++) {
        barrier_expect(s.full + i * 8, S::A_BYTES);
        tma_load(s.tiles + i * S::STAGE_BYTES, map, i * TILE_K, m0, s.full + i * 8);
    }
    if (rows_count(a.t.out.rows) > m0)
        feed_on<S>(map, a, s, first, 0, S::A_BYTES, m0);
}

/* t: where the products go. */
template <typename T, int XR, int BN>
__device__ __forceinline__ void compute(const struct few_args &a, const struct few_smem &s, const struct tile_args &t, int n0,
                                        char *staging)
{
    typedef few_shape<XR, BN> S;
    int warp = threadIdx.x / 32, m0 = blockIdx.y * 64 + warp * 16, m, before = -1;
    struct few_ring at(a.stages);
    float acc[BN / 2];
    chain_wait();
    m = rows_count(a.t.out.rows);
    if (m <= (int)blockIdx.y * 64)
        return;
    for (int k0 = 0; k0 < a.t.k; k0 += TILE_K, at.next()) {
        uint32_t x = s.tiles + at.stage * S::STAGE_BYTES;
        barrier_wait(s.full + at.stage * 8, at.phase);
        few_multiply<T, BN>(acc, x, x + S::A_BYTES, k0 == 0);
        if (before >= 0 && threadIdx.x == 0)
            barrier_arrive(s.empty + before * 8);
        before = at.stage;
    }
    wgmma_wait<0>();
    if (m0 >= m)
        return;
    char *stage = staging + warp * STAGING_BYTES;
    if (t.out.end == END_BLEND)
        write_blend<BN>(t, acc, (float *)stage, out_rows(t.out, m0, m), m0, n0);
    else
        write_tile<T, BN, true>(t, acc, stage, m0, m, n0);
}

/* A block: the tile of the weights' columns n0 .., which t tells of. */
template <typename T, int XR, int BN>
__device__ __forceinline__ void few_tile(const CUtensorMap *mx, const CUtensorMap *mw, const struct few_args &a, const struct tile_args &t,
                                         int n0)
{
    typedef few_shape<XR, BN> S;
    extern __shared__ char raw[];
    struct few_smem s;
    s.tiles = (smem_address(raw) + 1023) & ~1023u;
    uint32_t staging = s.tiles + a.stages * S::STAGE_BYTES;
    s.full = staging + S::ENDS_BYTES;
    s.empty = s.full + a.stages * 8;
    chain_start_next();
    if (threadIdx.x == FEW_COMPUTING)
        few_barriers(s.full, s.empty, a.stages, 2);
    __syncthreads();
    if (threadIdx.x == FEW_COMPUTING)
        feed_weights<XR, BN>(mw, a, s, n0);
    else if (threadIdx.x == FEW_COMPUTING + 32)
        feed_rows<XR, BN>(mx, a, s);
    else if (threadIdx.x < FEW_COMPUTING)
        compute<T, XR, BN>(a, s, t, n0, raw + (staging - smem_address(raw)));
}

#endif

template <typename T, int XR, int BN>
__global__ void __launch_bounds__(FEW_THREADS, 2)
    matmul_few_tile(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
                    const __grid_constant__ struct few_args a)
{
#if HAVE_SM90
    few_tile<T, XR, BN>(&mx, &mw, a, a.t, blockIdx.x * BN);
#endif
}

/* Tiles of two matrices, which have the same rows of x and the same depth. */
template <typename T, int XR, int BN>
__global__ void __launch_bounds__(FEW_THREADS, 2)
    matmul_few_tile_of_two(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw,
                           const __grid_constant__ CUtensorMap mw2, const __grid_constant__ struct few_args a,
                           const __grid_constant__ struct few_second b)
{
#if HAVE_SM90
    bool second = (int)blockIdx.x >= b.first;
    struct tile_args t = a.t;
    if (second)
        t = b.t;
    t.out.end = END_ACT;
    few_tile<T, XR, BN>(&mx, second ? &mw2 : &mw, a, t, ((int)blockIdx.x - (second ? b.first : 0)) * BN);
#endif
}

template <typename T, int XR, int BN>
static int start(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                 const struct matmul_second *second)
{
    typedef few_shape<XR, BN> S;
    auto one = matmul_few_tile<T, XR, BN>;
    auto two = matmul_few_tile_of_two<T, XR, BN>;
    int blocks = div_up(w->k, TILE_K), stages = blocks < S::STAGES_MAX ? blocks : S::STAGES_MAX, tiles = div_up(w->rows, BN);
    int r = cuda_allow_shared(c, second ? (const void *)two : (const void *)one, S::smem_bytes(S::STAGES_MAX));
    if (r < 0)
        return r;
    CUtensorMap mx;
    r = tensor_map(c, &mx, c->k.act, in->x, out->rows.n_max, w->k, in->ldx, XR);
    if (r < 0)
        return r;
    struct few_args a = {{w->k, w->rows, *out}, stages};
    if (second) {
        struct few_second b = {tiles, {w->k, second->w->rows, second->out}};
        chain_launch(c, two, tiles + div_up(second->w->rows, BN), FEW_THREADS, S::smem_bytes(stages), mx, *few_map<BN>(w),
                     *few_map<BN>(second->w), a, b);
    } else {
        chain_launch(c, one, dim3(tiles, div_up(out->rows.n_max, 64)), FEW_THREADS, S::smem_bytes(stages), mx, *few_map<BN>(w), a);
    }
    return launched(&c->k, "matmul_few_sm90");
}

enum { LATE_BYTES = 64 * 1024 };

static int rows_loaded(int m)
{
    return m <= 8 ? 8 : m <= 32 ? 32 : 64;
}

int few_width(const struct cuda_ctx *c, struct few_size z, struct few_costs (*costs)(int k, int bn), int *ret_cost)
{
    const int widths[] = {8, 16, 24, 32, 48, 64};
    int best = 0, least = 0;
    for (int bn : widths) {
        struct few_costs f = costs(z.k, bn);
        int tiles = div_up(z.m, 64) * (div_up(z.rows, bn) + div_up(z.second_rows, bn));
        int most = div_up(tiles, c->n_sm), late = div_up(most, f.resident) - 1;
        int cost = most * (rows_loaded(z.m) + bn) + late * LATE_BYTES / (2 * z.k);
        cost = most == 1 ? cost * f.alone / 100 : cost;
        if ((z.swiglu && bn % 16) || (best && cost >= least))
            continue;
        best = bn;
        least = cost;
    }
    if (ret_cost)
        *ret_cost = least;
    return best;
}

static struct few_costs costs_of(int k, int bn)
{
    return {.resident = 2, .alone = 175};
}

int matmul_few_cost(const struct cuda_ctx *c, const struct kern_matrix *w, const struct matmul_out *out)
{
    int cost;
    few_width(c, few_size_of(w, out, NULL), costs_of, &cost);
    return cost;
}

template <typename T, int XR>
static int choose(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                  const struct matmul_second *second)
{
    switch (few_width(c, few_size_of(w, out, second), costs_of, NULL)) {
    case 8: return start<T, XR, 8>(c, in, w, out, second);
    case 16: return start<T, XR, 16>(c, in, w, out, second);
    case 24: return start<T, XR, 24>(c, in, w, out, second);
    case 32: return start<T, XR, 32>(c, in, w, out, second);
    case 48: return start<T, XR, 48>(c, in, w, out, second);
    default: return start<T, XR, 64>(c, in, w, out, second);
    }
}

template <typename T>
static int choose_rows(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                       const struct matmul_second *second)
{
    switch (rows_loaded(out->rows.n_max)) {
    case 8: return choose<T, 8>(c, in, w, out, second);
    case 32: return choose<T, 32>(c, in, w, out, second);
    default: return choose<T, 64>(c, in, w, out, second);
    }
}

int matmul_few_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                    const struct matmul_second *second)
{
    return c->k.act == DTYPE_BF16 ? choose_rows<__nv_bfloat16>(c, in, w, out, second) : choose_rows<__half>(c, in, w, out, second);
}
