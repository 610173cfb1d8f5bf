/* Matmul of 16-bit activations and weights by warp matrix products: devices before Hopper, and after. A block computes one tile; its threads bring
 * the operands into a ring of stages, rows of the row list taken where they lie; each warp multiplies its part.
 *
 * Every element is one chain over k in steps of 16, whatever the tile: the shapes below give the same bits. */
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/cuda/mma.cuh"

/* WM x WN warps of 16 MT rows and 8 NT columns each; CHUNKS 16-byte chunks of k a stage; BLOCKS of them share a multiprocessor. */
template <int WM, int WN, int MT, int NT, int CHUNKS, int STAGES, int BLOCKS> struct mma_shape {
    enum {
        WARPS_N = WN,
        M_TILES = MT,
        N_TILES = NT,
        N_CHUNKS = CHUNKS,
        N_STAGES = STAGES,
        N_BLOCKS = BLOCKS,
        THREADS = 32 * WM * WN,
        WARP_M = 16 * MT,
        WARP_N = 8 * NT,
        BM = WM * WARP_M,
        BN = WN * WARP_N,
        BK = 8 * CHUNKS,
        A_BYTES = BM * CHUNKS * 16,
        STAGE_BYTES = A_BYTES + BN * CHUNKS * 16,
        ROW_STEP = THREADS / CHUNKS,
        A_COPIES = BM / ROW_STEP,
        B_COPIES = BN / ROW_STEP, /* a thread's copies are ROW_STEP rows apart */
        RING_BYTES = STAGES * STAGE_BYTES,
        ENDS_BYTES = WM * WN * STAGING_BYTES,
        SMEM_BYTES = RING_BYTES > ENDS_BYTES ? RING_BYTES : ENDS_BYTES
    };
    static_assert(BM % ROW_STEP == 0 && BN % ROW_STEP == 0 && NT % 2 == 0);
    /* Byte of a row's chunk in a tile: spread so that 8 rows' chunks of one k lie in different banks. */
    __device__ __forceinline__ static int at(int row, int chunk)
    {
        return row * CHUNKS * 16 + ((chunk ^ (CHUNKS == 8 ? row : row / 2)) % CHUNKS) * 16;
    }
};

typedef mma_shape<4, 1, 1, 4, 8, 8, 1> few_rows;
/* One shape with as much in flight as shared memory allows for two blocks. */
typedef mma_shape<2, 2, 4, 8, 8, 3, 2> square;       /* 227 KB: Hopper */
typedef mma_shape<2, 2, 4, 8, 8, 2, 2> square_less;  /* 163 KB: compute capability 8.0 */
typedef mma_shape<2, 2, 4, 8, 4, 3, 2> square_least; /* 99 KB: 8.6, 8.9 */

struct mma_args {
    struct tile_args t;
    const void *x, *w;
    int ldx, ldw;
};

/* A thread's share of the copies of a tile: one chunk of every ROW_STEP'th row. */
template <typename T, typename S> struct mma_feed {
    const T *x[S::A_COPIES];    /* NULL: no such row */
    const T *w;                 /* its first row's */
    int k, ldw, w_rows, column; /* column: of the thread's chunk in a stage */
    uint32_t to;                /* the chunk's place in stage 0, in A and (A_BYTES further) in B */

    __device__ __forceinline__ mma_feed(const struct mma_args &a, int m0, int n0, int m, uint32_t tiles)
    {
        int row = threadIdx.x / S::N_CHUNKS, chunk = threadIdx.x % S::N_CHUNKS;
#pragma unroll
        for (int i = 0; i < S::A_COPIES; i++) {
            int r = m0 + row + i * S::ROW_STEP;
            x[i] = r < m ? (const T *)a.x + (size_t)row_at(a.t.out.rows, r) * a.ldx : NULL;
        }
        w = (const T *)a.w + (n0 + row < a.t.rows ? (size_t)(n0 + row) * a.ldw : 0);
        k = a.t.k;
        ldw = a.ldw;
        w_rows = a.t.rows - n0 - row;
        column = chunk * 8;
        to = tiles + S::at(row, chunk);
        static_assert(S::ROW_STEP % 8 == 0, "a step in rows keeps the swizzle");
    }
    /* Columns k0 .. of both operands. What lies beyond k is not read: it may be anything. */
    __device__ __forceinline__ void issue(int stage, int k0) const
    {
        int c = k0 + column, bytes = c < k ? (k - c < 8 ? k - c : 8) * 2 : 0;
        uint32_t dst = to + stage * S::STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < S::A_COPIES; i++)
            copy16_part(dst + i * S::ROW_STEP * S::N_CHUNKS * 16, x[i] && bytes ? x[i] + c : w, x[i] ? bytes : 0);
#pragma unroll
        for (int i = 0; i < S::B_COPIES; i++) {
            bool valid = bytes && i * S::ROW_STEP < w_rows;
            copy16_part(dst + S::A_BYTES + i * S::ROW_STEP * S::N_CHUNKS * 16, valid ? w + (size_t)i * S::ROW_STEP * ldw + c : w,
                        valid ? bytes : 0);
        }
    }
};

/* A warp's operands of 16 columns of k. */
template <typename S> struct mma_operands {
    uint32_t a[S::M_TILES][4], b[S::N_TILES / 2][4];
    __device__ __forceinline__ void load(uint32_t stage, int warp, int step)
    {
        int lane = threadIdx.x % 32, a_row = warp / S::WARPS_N * S::WARP_M + lane % 16,
            b_row = warp % S::WARPS_N * S::WARP_N + lane / 16 * 8 + lane % 8;
        uint32_t from_a = stage + S::at(a_row, step * 2 + lane / 16), from_b = stage + S::A_BYTES + S::at(b_row, step * 2 + lane / 8 % 2);
#pragma unroll
        for (int i = 0; i < S::M_TILES; i++)
            ldmatrix(a[i], from_a + i * 16 * S::N_CHUNKS * 16);
#pragma unroll
        for (int j = 0; j < S::N_TILES / 2; j++)
            ldmatrix(b[j], from_b + j * 16 * S::N_CHUNKS * 16);
    }
};

template <typename T, typename S>
__device__ __forceinline__ void multiply_stage(float (&acc)[S::M_TILES][S::N_TILES * 4], uint32_t stage, int warp)
{
    struct mma_operands<S> o[2];
    o[0].load(stage, warp, 0);
#pragma unroll
    for (int step = 0; step < S::N_CHUNKS / 2; step++) {
        if (step + 1 < S::N_CHUNKS / 2) /* the next loads run under these products */
            o[(step + 1) % 2].load(stage, warp, step + 1);
        const struct mma_operands<S> &now = o[step % 2];
#pragma unroll
        for (int i = 0; i < S::M_TILES; i++)
#pragma unroll
            for (int j = 0; j < S::N_TILES; j++)
                mma<T>(&acc[i][j * 4], now.a[i], now.b[j / 2][j % 2 * 2], now.b[j / 2][j % 2 * 2 + 1]);
    }
}

template <typename T, typename S>
__global__ void __launch_bounds__(S::THREADS, S::N_BLOCKS) matmul_mma_tile(const __grid_constant__ struct mma_args a)
{
    extern __shared__ __align__(1024) char smem[];
    int m = rows_count(a.t.out.rows), warp = threadIdx.x / 32, tm, tn;
    struct tile_order order = {(m + S::BM - 1) / S::BM, (a.t.rows + S::BN - 1) / S::BN};
    if (blockIdx.x >= order.m_tiles * order.n_tiles)
        return;
    order.at(blockIdx.x, &tm, &tn);
    uint32_t tiles = smem_address(smem);
    const struct mma_feed<T, S> feed(a, tm * S::BM, tn * S::BN, m, tiles);
    float acc[S::M_TILES][S::N_TILES * 4] = {};
    int n = (a.t.k + S::BK - 1) / S::BK;
    for (int i = 0; i < S::N_STAGES - 1; i++) {
        if (i < n)
            feed.issue(i, i * S::BK);
        copy_commit();
    }
    for (int i = 0, stage = 0, free = S::N_STAGES - 1; i < n; i++) {
        copy_wait<S::N_STAGES - 2>();
        __syncthreads(); /* stage i has come, and everyone is done with the one before it */
        if (i + S::N_STAGES - 1 < n)
            feed.issue(free, (i + S::N_STAGES - 1) * S::BK);
        copy_commit();
        multiply_stage<T, S>(acc, tiles + stage * S::STAGE_BYTES, warp);
        free = stage;
        stage = stage + 1 < S::N_STAGES ? stage + 1 : 0;
    }
    copy_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < S::M_TILES; i++)
        write_tile<T, S::WARP_N, true>(a.t, acc[i], smem + warp * STAGING_BYTES, tm * S::BM + warp / S::WARPS_N * S::WARP_M + i * 16, m,
                                       tn * S::BN + warp % S::WARPS_N * S::WARP_N);
}

template <typename T, typename S>
static int start(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    auto kernel = matmul_mma_tile<T, S>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    struct mma_args a = {{w->k, w->rows, *out}, in->x, w->data, in->ldx, w->ld};
    kernel<<<div_up(out->rows.n_max, S::BM) * div_up(w->rows, S::BN), S::THREADS, S::SMEM_BYTES, c->stream>>>(a);
    return launched(&c->k, "matmul_mma");
}

template <typename S> static bool fits(struct cuda_ctx *c)
{
    return S::N_BLOCKS * (S::SMEM_BYTES + 1024) <= c->smem_bytes;
}

template <typename T>
static int choose(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    if (out->rows.n_max <= 64)
        return start<T, few_rows>(c, in, w, out);
    if (fits<square>(c))
        return start<T, square>(c, in, w, out);
    return fits<square_less>(c) ? start<T, square_less>(c, in, w, out) : start<T, square_least>(c, in, w, out);
}

int matmul_mma(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out)
{
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, in, w, out) : choose<__half>(c, in, w, out);
}
