/* Matmul on Hopper of the RMSNorm of a few rows (8 at most): matmul_few_sm90.cu's kernel, but each block makes its rows itself. It reads them as they are in float32 and
 * norms them as the op does (rmsnorm.cuh), into shared memory, where all of k has room; so one kernel less stands between two products. */
#include "kernels/cuda/matmul_few_sm90.cuh"
#include "kernels/cuda/rmsnorm.cuh"

enum {
    BLOCK_BYTES = (int)NORMED_ROWS_MAX * (int)TILE_K_BYTES /* of x, for TILE_K columns */,
    TILES_BYTES = 96 * 1024,
    ENDS_BYTES = 4 * STAGING_BYTES
};
static_assert(NORMED_ROWS_MAX == 8, "rows of the 128-byte swizzle");
static_assert((64 - (int)NORMED_ROWS_MAX) * (int)TILE_K_BYTES <= ENDS_BYTES, "64 rows from the last block on are the block's memory");

struct normed_args {
    struct tile_args t;
    struct matmul_norm norm;
    int blocks, stages; /* of k; of the ring of weights */
};

#if HAVE_SM90

struct normed_smem {
    uint32_t x, w, full, empty;
};

template <int BN> __device__ __forceinline__ void feed(const CUtensorMap *mw, const struct normed_args &a, const struct normed_smem &s)
{
    int first = a.blocks < a.stages ? a.blocks : a.stages, n0 = blockIdx.x * BN;
    for (int i = 0; i < first; i++) {
        barrier_expect(s.full + i * 8, BN * TILE_K_BYTES);
        tma_load(s.w + i * BN * TILE_K_BYTES, mw, i * TILE_K, n0, s.full + i * 8);
    }
    chain_wait();
    if (rows_count(a.t.out.rows) == 0) { /* nobody takes them; but they must have come before the block's memory is another's */
        for (int i = 0; i < first; i++)
            barrier_wait(s.full + i * 8, 0);
        return;
    }
    struct few_ring at(a.stages);
    for (int i = 0; i < a.blocks; i++, at.next()) {
        if (i < first)
            continue;
        barrier_wait(s.empty + at.stage * 8, at.phase ^ 1);
        barrier_expect(s.full + at.stage * 8, BN * TILE_K_BYTES);
        tma_load(s.w + at.stage * BN * TILE_K_BYTES, mw, i * TILE_K, n0, s.full + at.stage * 8);
    }
}

/* A warp's rows of the set into shared memory; zeros behind the last column. */
template <typename T, int CHUNKS> __device__ __forceinline__ void norm_rows(const struct normed_args &a, char *x)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, d4 = a.t.k / 4;
    float4 w[CHUNKS];
    if (warp < a.t.out.rows.n_max)
#pragma unroll
        for (int c = 0; c < CHUNKS; c++)
            w[c] = c * 32 + lane < d4 ? ((const float4 *)a.norm.w)[c * 32 + lane] : make_float4(0, 0, 0, 0);
    chain_wait();
    int m = rows_count(a.t.out.rows);
    for (int i = warp; i < m; i += 4) {
        struct norm_row<CHUNKS> v;
        v.load((const float4 *)a.norm.x + (size_t)(a.norm.idx ? a.norm.idx[i] : row_at(a.t.out.rows, i)) * d4, d4);
        float scale = v.scale(d4, a.norm.eps);
#pragma unroll
        for (int c = 0; c < CHUNKS; c++) {
            int j = c * 32 + lane; /* the columns from 4 j on: half a chunk of 16 bytes */
            float out[4] = {};
            if (j * 4 >= a.blocks * TILE_K)
                break;
            if (j < d4)
                v.scaled(out, c, scale, w[c]);
            store4((T *)(x + j / 16 * BLOCK_BYTES + i * TILE_K_BYTES + (j / 2 % 8 ^ i) * 16 + j % 2 * 8), out);
        }
    }
}

template <typename T, int BN, int CHUNKS>
__device__ __forceinline__ void compute(const struct normed_args &a, const struct normed_smem &s, char *x, char *staging)
{
    struct few_ring at(a.stages);
    float acc[BN / 2];
    int before = -1;
    norm_rows<T, CHUNKS>(a, x);
    int m = rows_count(a.t.out.rows);
    if (m == 0)
        return;
    proxy_fence();
    named_sync(1, 128);
    for (int i = 0; i < a.blocks; i++, at.next()) {
        barrier_wait(s.full + at.stage * 8, at.phase);
        few_multiply<T, BN>(acc, s.x + i * BLOCK_BYTES, s.w + at.stage * BN * TILE_K_BYTES, i == 0);
        if (before >= 0 && threadIdx.x == 0)
            barrier_arrive(s.empty + before * 8);
        before = at.stage;
    }
    wgmma_wait<0>();
    if (threadIdx.x < 32)
        write_tile<T, BN, false>(a.t, acc, staging, 0, m, blockIdx.x * BN);
}

#endif

template <typename T, int BN, int CHUNKS>
__global__ void __launch_bounds__(FEW_THREADS, 2)
    matmul_normed_tile(const __grid_constant__ CUtensorMap mw, const __grid_constant__ struct normed_args a)
{
#if HAVE_SM90
    extern __shared__ char raw[];
    struct normed_smem s;
    s.x = (smem_address(raw) + 1023) & ~1023u;
    s.w = s.x + a.blocks * BLOCK_BYTES;
    uint32_t staging = s.w + a.stages * BN * TILE_K_BYTES;
    s.full = staging + ENDS_BYTES;
    s.empty = s.full + a.stages * 8;
    chain_start_next();
    if (threadIdx.x == 128)
        few_barriers(s.full, s.empty, a.stages);
    __syncthreads();
    if (threadIdx.x == 128)
        feed<BN>(&mw, a, s);
    else if (threadIdx.x < 128)
        compute<T, BN, CHUNKS>(a, s, raw + (s.x - smem_address(raw)), raw + (staging - smem_address(raw)));
#endif
}

template <typename T, int BN, int CHUNKS>
static int start(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out)
{
    auto kernel = matmul_normed_tile<T, BN, CHUNKS>;
    const int overhead = 1024 + ENDS_BYTES;
    int blocks = div_up(w->k, TILE_K), room = (TILES_BYTES - blocks * BLOCK_BYTES) / (BN * TILE_K_BYTES),
        stages = blocks < room ? blocks : room;
    int r = cuda_allow_shared(c, (const void *)kernel, overhead + TILES_BYTES + CHUNKS * 2 * 16);
    if (r < 0)
        return r;
    struct normed_args a = {{w->k, w->rows, *out}, *norm, blocks, stages};
    chain_launch(c, kernel, div_up(w->rows, BN), FEW_THREADS, overhead + blocks * BLOCK_BYTES + stages * (BN * TILE_K_BYTES + 16),
                 *few_map<BN>(w), a);
    return launched(&c->k, "matmul_normed_sm90");
}

template <typename T, int CHUNKS>
static int choose(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out)
{
    switch (matmul_few_width(c, w, out)) {
    case 8: return start<T, 8, CHUNKS>(c, norm, w, out);
    case 16: return start<T, 16, CHUNKS>(c, norm, w, out);
    case 32: return start<T, 32, CHUNKS>(c, norm, w, out);
    default: return start<T, 64, CHUNKS>(c, norm, w, out);
    }
}

template <typename T>
static int choose_depth(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out)
{
    return w->k <= NORMED_K_MAX / 2 ? choose<T, 8>(c, norm, w, out) : choose<T, 16>(c, norm, w, out);
}

int matmul_normed_sm90(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out)
{
    return c->k.act == DTYPE_BF16 ? choose_depth<__nv_bfloat16>(c, norm, w, out) : choose_depth<__half>(c, norm, w, out);
}
