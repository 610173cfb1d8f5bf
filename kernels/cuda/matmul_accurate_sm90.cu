/* Float32-accurate matmul on f16 tensor cores, and the router that decides in its end.
 *
 * x (f32) is split in registers into two f16 terms of 11 bits: a row's 64 columns are first scaled by the power of two that brings the largest to
 * [2^14, 2^15), so nothing overflows and what underflows is below 2^-39 of it; the power is taken back when the 64 columns are added to the sum. Weights
 * were split alike at load (matrix_terms.cu): into one term where they were stored as bf16 or f16. Products of terms i and j (0 the larger) with
 * i + j < 2 are added, the smaller first. Tensor cores cut off what an accumulator cannot hold, where float32 would round: so they sum 64 columns
 * only, and those sums are added in plain float32.
 *
 * A tile is as wide as the registers allow, since each tile reads and splits its rows of x anew; its columns are multiplied PART at a time. */
#include "kernels/cuda/accurate_sm90.cuh"
#include "kernels/cuda/route.cuh"

enum { ACC_WGS = 2, ACC_BM = 64 * ACC_WGS };
static constexpr int X_BYTES = ACC_BM * 64 * 4; /* two boxes of 32 columns a warpgroup */

template <int BN, int STAGES> struct accurate_shape {
    enum { STAGE_BYTES = X_BYTES + BN * 128, SMEM_BYTES = 1024 + STAGES * (STAGE_BYTES + 16) + ACC_WGS * 4 * STAGING_BYTES };
};

struct accurate_args {
    struct tile_args a;
    int n_terms, term_ld;
    float unscale;            /* of the weights: one over the power of two that they were scaled with */
    struct router_end router; /* route NULL: the products are written */
};

#if HAVE_SM90

template <int BN, int STAGES>
__device__ static void feed_accurate(const CUtensorMap *mx, const CUtensorMap *mw, const struct accurate_args &p, struct tile_order order,
                                     uint32_t tiles, uint32_t full, uint32_t empty)
{
    typedef accurate_shape<BN, STAGES> S;
    ring<STAGES> at;
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        for (int k0 = 0; k0 < p.n_terms * p.term_ld; k0 += TILE_K, at.next()) {
            uint32_t bar = full + at.stage * 8, dst = tiles + at.stage * S::STAGE_BYTES;
            barrier_wait(empty + at.stage * 8, at.phase ^ 1);
            barrier_expect(bar, S::STAGE_BYTES);
            for (int i = 0; i < 2 * ACC_WGS; i++)
                tma_load(dst + i * 64 * 128, mx, k0 % p.term_ld + i % 2 * 32, tm * ACC_BM + i / 2 * 64, bar);
            for (int i = 0; i < BN / 64; i++)
                tma_load(dst + X_BYTES + i * 64 * 128, mw, k0, tn * BN + i * 64, bar);
        }
    }
}

/* The product that was waited for joins the sums of columns `from` / 2 .. */
template <int N> __device__ __forceinline__ void add_part(float (&acc)[N], int from, float (&part)[PART / 2], const float (&unscale)[2])
{
#pragma unroll
    for (int i = 0; i < PART / 2; i++) {
        asm volatile("" : "+f"(part[i])::"memory");
        acc[from + i] = fmaf(part[i], unscale[i / 2 % 2], acc[from + i]);
    }
}

struct accurate_smem {
    const char *x; /* the first stage */
    uint32_t tiles, full, empty;
    char *staging; /* [4 * STAGING_BYTES] of the warpgroup */
    int *last;     /* of the warpgroup: the router's end */
};

/* Adds x times one term of the weights. While one warpgroup splits its rows of x or adds, the other's products run. */
template <int BN, int STAGES, bool BOTH>
__device__ __forceinline__ void add_term(float (&acc)[BN / 2], const struct accurate_smem &m, ring<STAGES> *at, int blocks)
{
    struct x_terms x;
    float part[PART / 2];
    for (int b = 0; b < blocks; b++, at->next()) {
        int stage = at->stage * accurate_shape<BN, STAGES>::STAGE_BYTES;
        barrier_wait(m.full + at->stage * 8, at->phase);
        x.split(m.x + stage + (threadIdx.x / 128 - 1) * 2 * 64 * 128);
#pragma unroll
        for (int c = 0; c < BN; c += PART) {
            multiply_terms<BOTH>(part, x, m.tiles + stage + X_BYTES + c * 128);
            wgmma_wait<0>();
            add_part(acc, c / 2, part, x.unscale);
        }
        x.ready();
        if (threadIdx.x % 128 == 0)
            barrier_arrive(m.empty + at->stage * 8);
    }
}

/* Weight terms run from the smallest to the largest. */
template <int BN, int STAGES>
__device__ __forceinline__ void compute_tile(float (&acc)[BN / 2], const struct accurate_smem &m, ring<STAGES> *at, int blocks, int n_terms)
{
#pragma unroll
    for (int i = 0; i < BN / 2; i++)
        acc[i] = 0;
    if (n_terms == 2)
        add_term<BN, STAGES, false>(acc, m, at, blocks);
    add_term<BN, STAGES, true>(acc, m, at, blocks);
}

/* What the router's end needs of a column: its weight in z0 - z1. */
struct router_column {
    double w;
    float bias;
};

template <int BN> __device__ static void load_columns(const struct accurate_args &p, struct router_column *columns, int n0)
{
    static_assert(BN * sizeof(*columns) <= 4 * STAGING_BYTES, "in the warpgroup's staging");
    for (int i = threadIdx.x % 128; i < BN; i += 128) {
        int c = n0 + i;
        columns[i] = {0, 0};
        if (c < p.a.rows)
            columns[i] = {(double)p.router.w2[c] - (double)p.router.w2[p.a.rows + c], p.a.out.bias ? p.a.out.bias[c] : 0};
    }
}

/* Sums of PART columns, `from` / 2 .., of a thread's two rows. */
template <int N>
__device__ __forceinline__ void sum_columns(double z[2], const float (&acc)[N], int from, float unscale,
                                            const struct router_column *columns)
{
    z[0] = z[1] = 0;
#pragma unroll
    for (int i = from; i < from + PART / 2; i += 4)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            struct router_column c = columns[i * 2 + threadIdx.x % 4 * 2 + j];
            z[0] = fma((double)silu_near(fmaf(acc[i + j], unscale, c.bias)), c.w, z[0]);
            z[1] = fma((double)silu_near(fmaf(acc[i + j + 2], unscale, c.bias)), c.w, z[1]);
        }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        z[h] += __shfl_xor_sync(~0u, z[h], 1);
        z[h] += __shfl_xor_sync(~0u, z[h], 2);
    }
}

/* The tile's parts of the router's sums; the last warpgroup to bring a part of its 64 rows decides them. */
template <int BN>
__device__ static void decide_tile(const struct accurate_args &p, const float (&acc)[BN / 2], struct tile_order order, int tm, int tn,
                                   int m, const struct accurate_smem &smem)
{
    const struct router_end &e = p.router;
    int wg = threadIdx.x / 128 - 1, row0 = tm * ACC_BM + wg * 64, row = row0 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    named_sync(2 + wg, 128); /* the columns are there */
#pragma unroll
    for (int c = 0; c < BN; c += PART) {
        double z[2];
        if (tn * BN + c >= p.a.rows)
            break;
        sum_columns(z, acc, c / 2, p.unscale, (const struct router_column *)smem.staging);
        for (int h = 0; h < 2; h++)
            if (threadIdx.x % 4 == 0 && row + h * 8 < m)
                e.parts[(size_t)(tn * (BN / PART) + c / PART) * p.a.out.rows.n_max + row + h * 8] = z[h];
    }
    __threadfence();
    named_sync(2 + wg, 128);
    int *arrived = &e.arrived[tm * ACC_WGS + wg];
    if (threadIdx.x % 128 == 0)
        *smem.last = atomicAdd(arrived, 1) == order.n_tiles - 1;
    named_sync(2 + wg, 128);
    if (!*smem.last)
        return;
    __threadfence();
    row = row0 + threadIdx.x % 128;
    if (threadIdx.x % 128 < 64 && row < m)
        decide_row(e, (p.a.rows + PART - 1) / PART, p.a.out.rows.n_max, row, row_at(p.a.out.rows, row));
    if (threadIdx.x % 128 == 0)
        *arrived = 0;
}

template <int BN, int STAGES>
__device__ static void compute_accurate(const struct accurate_args &p, struct tile_order order, int m, const struct accurate_smem &smem)
{
    int row0 = threadIdx.x / 32 * 16 - 64; /* of the warp */
    ring<STAGES> at;
    float acc[BN / 2];
    for (int t = blockIdx.x; t < order.m_tiles * order.n_tiles; t += gridDim.x) {
        int tm, tn;
        order.at(t, &tm, &tn);
        if (p.router.to.route)
            load_columns<BN>(p, (struct router_column *)smem.staging, tn * BN);
        compute_tile<BN, STAGES>(acc, smem, &at, p.term_ld / TILE_K, p.n_terms);
        if (p.router.to.route) {
            decide_tile<BN>(p, acc, order, tm, tn, m, smem);
            continue;
        }
#pragma unroll
        for (int i = 0; i < BN / 2; i++)
            acc[i] *= p.unscale;
        write_f32<BN>(p.a, acc, (float *)(smem.staging + threadIdx.x / 32 % 4 * STAGING_BYTES), out_rows(p.a.out, tm * ACC_BM + row0, m),
                      tn * BN);
    }
}

#endif

template <int BN, int STAGES>
__global__ static void __launch_bounds__(128 * (ACC_WGS + 1), 1)
    matmul_accurate_tiles(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw, const struct accurate_args p)
{
#if HAVE_SM90
    extern __shared__ char raw[];
    __shared__ int last[ACC_WGS];
    uint32_t tiles = (smem_address(raw) + 1023) & ~1023u, staging = tiles + STAGES * accurate_shape<BN, STAGES>::STAGE_BYTES;
    uint32_t full = staging + ACC_WGS * 4 * STAGING_BYTES, empty = full + STAGES * 8;
    chain_start_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(full + i * 8, 1);
            barrier_init(empty + i * 8, ACC_WGS);
        }
        barrier_init_fence();
    }
    __syncthreads();
    chain_wait();
    int m = rows_count(p.a.out.rows);
    struct tile_order order = {(m + ACC_BM - 1) / ACC_BM, (p.a.rows + BN - 1) / BN};
    if (threadIdx.x < 128) {
        registers_lower<40>();
        if (threadIdx.x == 0)
            feed_accurate<BN, STAGES>(&mx, &mw, p, order, tiles, full, empty);
    } else {
        registers_raise<232>();
        int wg = threadIdx.x / 128 - 1;
        struct accurate_smem smem = {
            raw + (tiles - smem_address(raw)), tiles, full, empty, raw + (staging - smem_address(raw)) + wg * 4 * STAGING_BYTES, last + wg};
        compute_accurate<BN, STAGES>(p, order, m, smem);
    }
#endif
}

static int tiles_of(const struct kern_matrix *w, int m, int bn)
{
    return div_up(m, ACC_BM) * div_up(w->rows, bn);
}

template <int BN, int STAGES>
static int start(struct cuda_ctx *c, const CUtensorMap *mx, const struct kern_matrix *w, const struct accurate_args *p)
{
    const int bytes = accurate_shape<BN, STAGES>::SMEM_BYTES;
    auto kernel = matmul_accurate_tiles<BN, STAGES>;
    int r = cuda_allow_shared(c, (const void *)kernel, bytes);
    if (r < 0)
        return r;
    int n_tiles = tiles_of(w, p->a.out.rows.n_max, BN), blocks = n_tiles < c->n_sm ? n_tiles : c->n_sm;
    chain_launch(c, kernel, blocks, 128 * (ACC_WGS + 1), bytes, *mx, w->box64, *p);
    return launched(&c->k, "matmul_accurate_sm90");
}

/* Wide tiles, but where few rows leave most of the device without one: a wave of them takes about 5/2 of a wave of narrow ones. */
static int choose(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                  const struct router_end *router)
{
    int m = out->rows.n_max;
    if (matmul_accurate_few_fits(c, w, out))
        return matmul_accurate_few_sm90(c, in, w, out, router, NULL);
    CUtensorMap mx;
    int r = tensor_map(c, &mx, DTYPE_F32, in->x, m, w->k, in->ldx, 64);
    if (r < 0)
        return r;
    struct accurate_args p = {{w->k, w->rows, *out}, w->n_terms, w->term_ld, w->term_unscale, *router};
    bool narrow = 2 * div_up(tiles_of(w, m, 64), c->n_sm) < 5 * div_up(tiles_of(w, m, 256), c->n_sm);
    return narrow ? start<64, 5>(c, &mx, w, &p) : start<256, 3>(c, &mx, w, &p);
}

int matmul_accurate_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    struct router_end none = {};
    return choose(c, in, w, out, &none);
}

static struct matmul_out router_out(const struct kern_matrix *w, struct rows n)
{
    struct matmul_out out = {END_F32, NULL, 0, w->n};
    out.bias = w->bias;
    out.rows = n;
    return out;
}

/* Fills in parts and arrived, and returns a counter more; NULL: no memory, or the device has failed. */
static int *router_scratch(struct cuda_ctx *c, const struct kern_matrix *w, int n_max, struct router_end *end)
{
    int tiles = div_up(n_max, ACC_BM) * (ACC_BM / ACCURATE_FEW_TILE);
    end->parts = (double *)cuda_scratch(c, SCRATCH_ROUTE, (size_t)div_up(w->rows, PART) * n_max * sizeof(double));
    end->arrived = end->parts ? cuda_counters(c, tiles + 1) : NULL;
    return end->arrived ? end->arrived + tiles : NULL;
}

int route_mlp_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, struct rows n, struct router_end end)
{
    if (!router_scratch(c, w, n.n_max, &end))
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    struct matmul_out out = router_out(w, n);
    return choose(c, in, w, &out, &end);
}

int route_mlp_place_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, struct rows n, struct router_end end,
                         const struct place_args *place)
{
    struct matmul_out out = router_out(w, n);
    if (!matmul_accurate_few_fits(c, w, &out))
        return 0;
    struct router_place then = {*place, router_scratch(c, w, n.n_max, &end)};
    if (!then.decided)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    int r = matmul_accurate_few_sm90(c, in, w, &out, &end, &then);
    return r < 0 ? r : 1;
}
