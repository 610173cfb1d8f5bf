/* Matmul on Hopper of a few rows (8 at most) that each block brings in itself, as they are or normed: matmul_few_sm90.cu's kernel, but all of a row lies in shared
 * memory, where the computing warps put it. Rows to be normed are read as they are in float32 and normed as the op does (rmsnorm.cuh), so one kernel less stands
 * between two products; others, where they are short, are copied at once, which takes less time than to ask the copy engine for each k block. */
#include "kernels/cuda/matmul_few_sm90.cuh"
#include "kernels/cuda/rmsnorm.cuh"

enum {
    OWN_THREADS = FEW_COMPUTING + 32,
    BLOCK_BYTES = (int)NORMED_ROWS_MAX * (int)TILE_K_BYTES /* of x, for TILE_K columns */,
    TILES_BYTES = 96 * 1024,
    ENDS_BYTES = 4 * STAGING_BYTES
};
static_assert(NORMED_ROWS_MAX == 8, "rows of the 128-byte swizzle");
static_assert((64 - (int)NORMED_ROWS_MAX) * (int)TILE_K_BYTES <= ENDS_BYTES, "64 rows from the last block on are the block's memory");

struct own_args {
    struct tile_args t;
    struct matmul_norm norm;
    struct matmul_in in; /* rows that are not normed */
    int blocks, stages;  /* of k; of the ring of weights */
};

#if HAVE_SM90

struct own_smem {
    uint32_t x, w, full, empty;
};

template <int BN> __device__ __forceinline__ void feed(const CUtensorMap *mw, const struct own_args &a, const struct own_smem &s, int n0)
{
    int first = a.blocks < a.stages ? a.blocks : a.stages;
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
template <typename T, int CHUNKS> __device__ __forceinline__ void norm_rows(const struct own_args &a, char *x)
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

/* Rows of the set as they are; zeros behind the last column. */
template <typename T> __device__ __forceinline__ void copy_rows(const struct own_args &a, uint32_t x)
{
    int chunks = a.blocks * 8; /* of 16 bytes */
    chain_wait();
    int all = rows_count(a.t.out.rows) * chunks;
    for (int n = threadIdx.x; n < all; n += FEW_COMPUTING) {
        int i = n / chunks, c = n % chunks, left = (a.t.k - c * 8) * 2;
        const T *row = (const T *)a.in.x + (size_t)row_at(a.t.out.rows, i) * a.in.ldx;
        copy16_part(x + c / 8 * BLOCK_BYTES + i * TILE_K_BYTES + (c % 8 ^ i) * 16, left > 0 ? row + c * 8 : row,
                    left < 0    ? 0
                    : left < 16 ? left
                                : 16);
    }
    copy_commit();
    copy_wait<0>();
}

/* t: where the products go. */
template <typename T, int BN, int CHUNKS, bool FAN>
__device__ __forceinline__ void compute(const struct own_args &a, const struct own_smem &s, const struct tile_args &t, int n0, char *x,
                                        char *staging)
{
    struct few_ring at(a.stages);
    float acc[BN / 2];
    int before = -1;
    if constexpr (CHUNKS)
        norm_rows<T, CHUNKS>(a, x);
    else
        copy_rows<T>(a, s.x);
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
        write_tile<T, BN, FAN>(t, acc, staging, 0, m, n0);
}

/* A block: the tile of the weights' columns n0 .., which t tells of. CHUNKS: of norm_row; 0: rows as they are. */
template <typename T, int BN, int CHUNKS, bool FAN>
__device__ __forceinline__ void own_tile(const CUtensorMap *mw, const struct own_args &a, const struct tile_args &t, int n0)
{
    extern __shared__ char raw[];
    struct own_smem s;
    s.x = (smem_address(raw) + 1023) & ~1023u;
    s.w = s.x + a.blocks * BLOCK_BYTES;
    uint32_t staging = s.w + a.stages * BN * TILE_K_BYTES;
    s.full = staging + ENDS_BYTES;
    s.empty = s.full + a.stages * 8;
    chain_start_next();
    if (threadIdx.x == FEW_COMPUTING)
        few_barriers(s.full, s.empty, a.stages, 1);
    __syncthreads();
    if (threadIdx.x == FEW_COMPUTING)
        feed<BN>(mw, a, s, n0);
    else if (threadIdx.x < FEW_COMPUTING)
        compute<T, BN, CHUNKS, FAN>(a, s, t, n0, raw + (s.x - smem_address(raw)), raw + (staging - smem_address(raw)));
}

#endif

template <typename T, int BN, int CHUNKS>
__global__ void __launch_bounds__(OWN_THREADS, 2)
    matmul_own_tile(const __grid_constant__ CUtensorMap mw, const __grid_constant__ struct own_args a)
{
#if HAVE_SM90
    own_tile<T, BN, CHUNKS, CHUNKS == 0>(&mw, a, a.t, blockIdx.x * BN);
#endif
}

/* Tiles of two matrices, which have the same rows of x and the same depth. */
template <typename T, int BN, int CHUNKS>
__global__ void __launch_bounds__(OWN_THREADS, 2)
    matmul_own_tile_of_two(const __grid_constant__ CUtensorMap mw, const __grid_constant__ CUtensorMap mw2,
                           const __grid_constant__ struct own_args a, const __grid_constant__ struct few_second b)
{
#if HAVE_SM90
    bool second = (int)blockIdx.x >= b.first;
    struct tile_args t = a.t;
    if (second)
        t = b.t;
    t.out.end = END_ACT;
    own_tile<T, BN, CHUNKS, true>(second ? &mw2 : &mw, a, t, ((int)blockIdx.x - (second ? b.first : 0)) * BN);
#endif
}

static const int OVERHEAD_BYTES = 1024 + ENDS_BYTES;

/* Stages of the ring: all of k where that fits. */
static int ring_stages(int k, int bn)
{
    int blocks = div_up(k, TILE_K), room = (TILES_BYTES - blocks * BLOCK_BYTES) / (bn * TILE_K_BYTES);
    return blocks < room ? blocks : room;
}

static int smem_bytes(int k, int bn)
{
    return OVERHEAD_BYTES + div_up(k, TILE_K) * BLOCK_BYTES + ring_stages(k, bn) * (bn * TILE_K_BYTES + 16);
}

static struct few_costs costs_of(int k, int bn)
{
    const int MULTIPROCESSOR_BYTES = 227 * 1024, RESERVED_BYTES = 1024; /* of each block, by the driver */
    return {.resident = MULTIPROCESSOR_BYTES / (smem_bytes(k, bn) + RESERVED_BYTES), .alone = 130};
}

static int allow(struct cuda_ctx *c, const void *kernel)
{
    return cuda_allow_shared(c, kernel, OVERHEAD_BYTES + TILES_BYTES + (int)NORMED_K_MAX / (int)TILE_K * 16);
}

template <typename T, int BN, int CHUNKS>
static int start_two(struct cuda_ctx *c, const struct own_args &a, const struct kern_matrix *w, const struct matmul_second *second)
{
    auto kernel = matmul_own_tile_of_two<T, BN, CHUNKS>;
    int r = allow(c, (const void *)kernel), tiles = div_up(w->rows, BN);
    if (r < 0)
        return r;
    struct few_second b = {tiles, {w->k, second->w->rows, second->out}};
    chain_launch(c, kernel, tiles + div_up(second->w->rows, BN), OWN_THREADS, smem_bytes(w->k, BN), *few_map<BN>(w),
                 *few_map<BN>(second->w), a, b);
    return launched(&c->k, "matmul_own_sm90");
}

template <typename T, int BN, int CHUNKS>
static int start(struct cuda_ctx *c, const struct matmul_norm *norm, const struct matmul_in *in, const struct kern_matrix *w,
                 const struct matmul_out *out, const struct matmul_second *second)
{
    auto kernel = matmul_own_tile<T, BN, CHUNKS>;
    struct own_args a = {{w->k, w->rows, *out}, *norm, *in, div_up(w->k, TILE_K), ring_stages(w->k, BN)};
    if constexpr (CHUNKS > 0)
        if (second)
            return start_two<T, BN, CHUNKS>(c, a, w, second);
    int r = allow(c, (const void *)kernel);
    if (r < 0)
        return r;
    chain_launch(c, kernel, div_up(w->rows, BN), OWN_THREADS, smem_bytes(w->k, BN), *few_map<BN>(w), a);
    return launched(&c->k, "matmul_own_sm90");
}

template <typename T, int CHUNKS>
static int choose(struct cuda_ctx *c, const struct matmul_norm *norm, const struct matmul_in *in, const struct kern_matrix *w,
                  const struct matmul_out *out, const struct matmul_second *second)
{
    switch (few_width(c, few_size_of(w, out, second), costs_of, NULL)) {
    case 8: return start<T, 8, CHUNKS>(c, norm, in, w, out, second);
    case 16: return start<T, 16, CHUNKS>(c, norm, in, w, out, second);
    case 24: return start<T, 24, CHUNKS>(c, norm, in, w, out, second);
    case 32: return start<T, 32, CHUNKS>(c, norm, in, w, out, second);
    case 48: return start<T, 48, CHUNKS>(c, norm, in, w, out, second);
    default: return start<T, 64, CHUNKS>(c, norm, in, w, out, second);
    }
}

template <typename T>
static int choose_depth(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out,
                        const struct matmul_second *second)
{
    const struct matmul_in none = {};
    return w->k <= NORMED_K_MAX / 2 ? choose<T, 8>(c, norm, &none, w, out, second) : choose<T, 16>(c, norm, &none, w, out, second);
}

int matmul_normed_sm90(struct cuda_ctx *c, const struct matmul_norm *norm, const struct kern_matrix *w, const struct matmul_out *out,
                       const struct matmul_second *second)
{
    return c->k.act == DTYPE_BF16 ? choose_depth<__nv_bfloat16>(c, norm, w, out, second) : choose_depth<__half>(c, norm, w, out, second);
}

int matmul_own_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    const struct matmul_norm none = {};
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16, 0>(c, &none, in, w, out, NULL) : choose<__half, 0>(c, &none, in, w, out, NULL);
}
