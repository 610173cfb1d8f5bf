/* Attention on Hopper's tensor cores. Persistent blocks share out the pieces of work (a query tile and a KV head). One warpgroup brings
 * queries and key blocks in: through the copy engine where a block's slots follow each other, else row by row; the others hold 64 packed rows
 * each, with queries, scores and sums in registers. The product with the next keys runs under the softmax of the present ones.
 *
 * Shape of the computation: FlashAttention-3, arXiv 2407.08608, section 3; the packed rows of a head group: attention.cuh. */
#include <math_constants.h>
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/sm90.cuh"

/* HD: head size rounded up to a shape of the kernel; WGS: computing warpgroups; BN: keys of a block. */
template <int HD, int WGS, int BN> struct attention_shape {
    enum {
        THREADS = 128 * (WGS + 1), ROWS = 64 * WGS, PANELS = (HD + 63) / 64, PANEL_BYTES = BN * 128, TILE_BYTES = PANELS * PANEL_BYTES,
        STAGES = 2, Q_BYTES = PANELS * ROWS * 128, Q_IN_REGISTERS = HD <= 128,
        SMEM_BYTES = 1024 + Q_BYTES + 2 * STAGES * TILE_BYTES + ROWS * 8 + 128
    };
};

struct sm90_attention_args {
    struct attention_args a;
    struct attention_tiles tiles;
    bool tma;                  /* hd is HD itself: blocks of consecutive slots may be copied whole */
};

#if HAVE_SM90

/* Shared memory: addresses, and what is read and written by plain code. */
struct attention_smem {
    uint32_t q, k, v;                                   /* one tile; STAGES tiles each */
    uint32_t k_full, k_empty, v_full, v_empty;          /* barriers, two each */
    uint32_t q_full, q_empty;                           /* one each */
    volatile int *n_keys;                               /* [1] of the piece; 0: no more */
    volatile int2 *row;                                 /* [ROWS] (row of `out` in heads, or -1; keys it sees) */
};

/* Number of this block's piece in its n-th turn: back and forth over the blocks, so that long and short pieces even out. */
__device__ __forceinline__ int piece_number(int turn)
{
    return turn * gridDim.x + (turn % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
}

/* ---- the feeding warpgroup ---- */

/* Row-wise copies are announced late: the copies of one tile run while those of the next are issued. */
struct feeder {
    uint32_t pending;          /* barrier of the last tile if it is still to be announced, else 0 */
    __device__ __forceinline__ void announce_before()
    {
        if (pending) {
            copy_wait<1>();
            proxy_fence();
            barrier_arrive(pending);
        }
        pending = 0;
    }
    __device__ __forceinline__ void announce()
    {
        if (pending) {
            copy_wait<0>();
            proxy_fence();
            barrier_arrive(pending);
        }
        pending = 0;
    }
};

/* BN keys of one head, K or V (`part` 0 or 1), into the tile at dst; `slot`: of this lane's row in the warp's share of rows. */
template <typename T, int HD, int BN>
__device__ __forceinline__ void copy_rows16(const struct attention_args &a, uint32_t dst, int part, int kv_head, int slot, int rows_valid)
{
    constexpr int CHUNKS = HD / 8, SHARE = BN / 4;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const T *base = (const T *)a.kv + ((size_t)part * a.hk + kv_head) * a.hd;
    size_t ld = (size_t)2 * a.hk * a.hd;
#pragma unroll 4
    for (int i = lane; i < SHARE * CHUNKS; i += 32) {
        int r = i / CHUNKS, chunk = i % CHUNKS, row = warp * SHARE + r;
        size_t s = __shfl_sync(~0u, slot, r);
        bool valid = row < rows_valid && chunk * 8 < a.hd;
        copy16(dst + chunk / 8 * BN * 128 + row * 128 + (chunk % 8 ^ row % 8) * 16, valid ? base + s * ld + chunk * 8 : base, valid);
    }
}

template <typename T, int HD, int BN>
__device__ __forceinline__ void feed_tile(const struct sm90_attention_args &p, const CUtensorMap *map, struct feeder *f, uint32_t dst, uint32_t bar,
                                          int part, int kv_head, int slot, int first_slot, bool whole, int rows_valid)
{
    typedef attention_shape<HD, 1, BN> S;
    if (whole) {
        if (threadIdx.x == 0) {
            barrier_expect(bar, S::TILE_BYTES);
            for (int i = 0; i < S::PANELS; i++)
                tma_load(dst + i * S::PANEL_BYTES, map, (part * p.a.hk + kv_head) * p.a.hd + i * 64, first_slot, bar);
        } else {
            barrier_arrive(bar);
        }
    } else {
        copy_rows16<T, HD, BN>(p.a, dst, part, kv_head, slot, rows_valid);
    }
    copy_commit();
    f->announce_before();
    f->pending = whole ? 0 : bar;
}

/* The slots of keys j0 .. j0+BN-1: this lane's in its warp's share of rows, and whether all follow the first. */
template <int BN> __device__ __forceinline__ bool read_slots(const int *slots, int n_keys, int j0, int *slot, int *first)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, s[BN / 32];
    bool whole = j0 + BN <= n_keys;
#pragma unroll
    for (int i = 0; i < BN / 32; i++)
        s[i] = j0 + i * 32 + lane < n_keys ? slots[j0 + i * 32 + lane] : 0;
    *first = __shfl_sync(~0u, s[0], 0);
#pragma unroll
    for (int i = 0; i < BN / 32; i++)
        whole = whole && s[i] == *first + i * 32 + lane;
    int row = warp * (BN / 4) + lane % (BN / 4);
    *slot = j0 + row < n_keys ? slots[j0 + row] : 0;
    return __all_sync(~0u, whole);
}

/* The step row of packed row threadIdx.x of a tile, or -1. */
__device__ __forceinline__ int packed_row(const struct attention_args &a, const struct attention_tile &t)
{
    return threadIdx.x < t.rows ? a.sel[t.start + (t.first + threadIdx.x) / (a.h / a.hk)] : -1;
}

/* The queries of a piece: each warp its 32 packed rows, with what the computing warps must know of them. */
template <typename T, int HD, int ROWS>
__device__ __forceinline__ void feed_queries(const struct attention_args &a, const struct attention_smem &m, const struct attention_tile &t, int kv_head,
                                             int row, int visible)
{
    constexpr int CHUNKS = HD / 8;
    int lane = threadIdx.x % 32, group = a.h / a.hk, head = kv_head * group + (t.first + threadIdx.x) % group;
    int from = row < 0 ? -1 : row * (a.h + 2 * a.hk) + head;   /* in heads of qkv */
    m.row[threadIdx.x].x = row < 0 ? -1 : row * a.h + head;
    m.row[threadIdx.x].y = visible;
    if (threadIdx.x == 0)
        *m.n_keys = t.n_keys;
#pragma unroll 4
    for (int i = lane; i < 32 * CHUNKS; i += 32) {
        int r = threadIdx.x / 32 * 32 + i / CHUNKS, chunk = i % CHUNKS, source = __shfl_sync(~0u, from, i / CHUNKS);
        bool valid = source >= 0 && chunk * 8 < a.hd;
        copy16(m.q + chunk / 8 * ROWS * 128 + r * 128 + (chunk % 8 ^ r % 8) * 16,
               (const T *)a.qkv + (valid ? (size_t)source * a.hd + chunk * 8 : 0), valid);
    }
    copy_commit();
}

/* What lies ahead is read ahead: the tile after next, and the next one's rows. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void feed_attention(const struct sm90_attention_args &p, const CUtensorMap *map, const struct attention_smem &m, int total)
{
    typedef attention_shape<HD, WGS, BN> S;
    static_assert(S::ROWS == 128, "a feeding thread a row");
    const struct attention_args &a = p.a;
    struct feeder f = {0};
    struct attention_tile none = {0, 0, 0, 0, 0}, tile = none, next = none;
    int fed = 0, number = piece_number(0), row, visible;   /* fed: tiles so far; stage = fed % 2, phase = fed / 2 % 2 */
    tile = number < total ? p.tiles.tile[number / a.hk] : none;
    row = packed_row(a, tile);
    visible = row >= 0 ? a.visible[row] : 0;
    number = piece_number(1);
    next = number < total ? p.tiles.tile[number / a.hk] : none;
    for (int turn = 0;; turn++) {
        int kv_head = piece_number(turn) % a.hk, next_row = packed_row(a, next), next_visible = 0;
        number = piece_number(turn + 2);
        struct attention_tile after = number < total ? p.tiles.tile[number / a.hk] : none;
        barrier_wait(m.q_empty, turn % 2 ^ 1);
        feed_queries<T, HD, S::ROWS>(a, m, tile, kv_head, row, visible);
        f.announce_before();
        f.pending = m.q_full;
        if (tile.n_keys == 0)
            break;
        for (int j0 = 0; j0 < tile.n_keys; j0 += BN, fed++) {
            int slot, first, stage = fed % 2, phase = fed / 2 % 2;
            bool whole = read_slots<BN>(a.tables + tile.slots, tile.n_keys, j0, &slot, &first) && p.tma;
            barrier_wait(m.k_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.k + stage * S::TILE_BYTES, m.k_full + stage * 8, 0, kv_head, slot, first, whole, tile.n_keys - j0);
            barrier_wait(m.v_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.v + stage * S::TILE_BYTES, m.v_full + stage * 8, 1, kv_head, slot, first, whole, tile.n_keys - j0);
            if (j0 == 0)
                next_visible = next_row >= 0 ? a.visible[next_row] : 0;
        }
        f.announce();
        tile = next;
        row = next_row;
        visible = next_visible;
        next = after;
    }
    f.announce();
}

/* ---- the computing warpgroups ---- */

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

template <typename T> __device__ __forceinline__ uint32_t pack2(float a, float b);
template <> __device__ __forceinline__ uint32_t pack2<__nv_bfloat16>(float a, float b)
{
    __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&v;
}
template <> __device__ __forceinline__ uint32_t pack2<__half>(float a, float b)
{
    __half2 v = __floats2half2_rn(a, b);
    return *(uint32_t *)&v;
}

/* Reads of these registers stay behind the wait before. */
template <int N> __device__ __forceinline__ void registers_ready(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* One thread's two packed rows (lane/4 and lane/4 + 8 of the warp's 16). */
template <typename T, int HD, int WGS, int BN> struct query_rows {
    typedef attention_shape<HD, WGS, BN> S;
    uint32_t q[S::Q_IN_REGISTERS ? HD / 16 : 1][4], q_tile;
    int row[2], visible[2], all_see;   /* row of `out` in heads, or -1; all_see: keys that every row of the warpgroup sees */
    float max[2], sum[2], scale_log2;

    __device__ __forceinline__ void load(const struct attention_args &a, const struct attention_smem &m, int wg)
    {
        int lane = threadIdx.x % 32, base = wg * 64 + threadIdx.x / 32 % 4 * 16;
        all_see = m.row[wg * 64].y;
        scale_log2 = a.scale * 1.4426950408889634f;
        q_tile = m.q + wg * 64 * 128;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            row[i] = m.row[base + lane / 4 + i * 8].x;
            visible[i] = m.row[base + lane / 4 + i * 8].y;
            max[i] = -CUDART_INF_F;
            sum[i] = 0;
        }
        if constexpr (S::Q_IN_REGISTERS) {
            int r = base + lane % 16;
#pragma unroll
            for (int t = 0; t < HD / 16; t++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(q[t][0]), "=r"(q[t][1]), "=r"(q[t][2]), "=r"(q[t][3])
                             : "r"(m.q + t / 4 * S::ROWS * 128 + r * 128 + ((t % 4 * 2 + lane / 16) ^ r % 8) * 16) : "memory");
        }
    }

    /* s (scores of keys j0..) becomes exp2 of scaled scores less the row's maximum; returns what earlier sums must be multiplied with. */
    __device__ __forceinline__ void softmax(float (&s)[BN / 2], int j0, float keep[2])
    {
        int lane = threadIdx.x % 32;
        if (j0 + BN > all_see)
#pragma unroll
            for (int i = 0; i < BN / 2; i++)
                if (j0 + i / 4 * 8 + lane % 4 * 2 + i % 2 >= visible[i / 2 % 2])
                    s[i] = -CUDART_INF_F;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = max[h];
#pragma unroll
            for (int i = 0; i < BN / 8; i++)
                top = fmaxf(top, fmaxf(s[i * 4 + h * 2], s[i * 4 + h * 2 + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float shift = top == -CUDART_INF_F ? 0 : top * scale_log2;
            keep[h] = exp2_fast(fmaf(max[h], scale_log2, -shift));
            max[h] = top;
            float add = 0;
#pragma unroll
            for (int i = 0; i < BN / 8; i++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float &x = s[i * 4 + h * 2 + e];
                    x = exp2_fast(fmaf(x, scale_log2, -shift));
                    add += x;
                }
            sum[h] = fmaf(sum[h], keep[h], add);
        }
    }

    __device__ __forceinline__ void store(const struct attention_args &a, const float (&o)[HD / 2])
    {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            if (row[h] < 0)
                continue;
            float inverse = 1.0f / total;
            T *out = (T *)a.out + (size_t)row[h] * a.hd;
#pragma unroll
            for (int i = 0; i < HD / 8; i++) {
                int c = i * 8 + lane % 4 * 2;
                if (c < a.hd)
                    *(uint32_t *)(out + c) = pack2<T>(o[i * 4 + h * 2] * inverse, o[i * 4 + h * 2 + 1] * inverse);
            }
        }
    }
};

template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void multiply_keys(float (&s)[BN / 2], const struct query_rows<T, HD, WGS, BN> &rows, uint32_t k)
{
    typedef attention_shape<HD, WGS, BN> S;
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < HD / 16; t++) {
        uint64_t keys = tile_k_major(k + t / 4 * BN * 128) + t % 4 * 2;
        if constexpr (S::Q_IN_REGISTERS)
            wgmma<T, BN>::template rs<0>(s, rows.q[t], keys, t > 0);
        else
            wgmma<T, BN>::ss(s, tile_k_major(rows.q_tile + t / 4 * S::ROWS * 128) + t % 4 * 2, keys, t > 0);
    }
    wgmma_commit();
}

template <typename T, int HD, int BN> __device__ __forceinline__ void multiply_values(float (&o)[HD / 2], const uint32_t (&p)[BN / 16][4], uint32_t v, int add)
{
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < BN / 16; t++)
        wgmma<T, HD>::template rs<1>(o, p[t], tile_n_major(v, BN * 128) + t * 128, add || t > 0);
    wgmma_commit();
}

template <typename T, int BN> __device__ __forceinline__ void to_operand(uint32_t (&p)[BN / 16][4], const float (&s)[BN / 2])
{
#pragma unroll
    for (int i = 0; i < BN / 4; i++)
        p[i / 4][i % 4] = pack2<T>(s[i * 2], s[i * 2 + 1]);
}

/* Two warpgroups take turns in issuing products, so that one's softmax runs under the other's products. */
template <int WGS> struct turns {
    int mine;
    __device__ __forceinline__ void begin() { if (WGS == 2) named_sync(2 + mine, 256); }
    __device__ __forceinline__ void end() { if (WGS == 2) named_arrive(3 - mine, 256); }
};

__device__ __forceinline__ void leave(uint32_t bar)
{
    if (threadIdx.x % 128 == 0)
        barrier_arrive(bar);
}

template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void compute_piece(const struct attention_args &a, const struct attention_smem &m, int n_keys, int wg, int *fed,
                                              struct turns<WGS> turn)
{
    typedef attention_shape<HD, WGS, BN> S;
    struct query_rows<T, HD, WGS, BN> rows;
    rows.load(a, m, wg);
    __syncwarp();
    if (S::Q_IN_REGISTERS && threadIdx.x % 32 == 0)
        barrier_arrive(m.q_empty);
    float s[BN / 2], o[HD / 2], keep[2];
    uint32_t p[BN / 16][4];
    int n = (n_keys + BN - 1) / BN, at = *fed;
    barrier_wait(m.k_full + at % 2 * 8, at / 2 % 2);
    turn.begin();
    multiply_keys(s, rows, m.k + at % 2 * S::TILE_BYTES);
    turn.end();
    wgmma_wait<0>();
    registers_ready(s);
    leave(m.k_empty + at % 2 * 8);
    rows.softmax(s, 0, keep);
    to_operand<T, BN>(p, s);
    for (int j = 1; j < n; j++, at++) {
        int next = at + 1;
        barrier_wait(m.k_full + next % 2 * 8, next / 2 % 2);
        turn.begin();
        multiply_keys(s, rows, m.k + next % 2 * S::TILE_BYTES);
        barrier_wait(m.v_full + at % 2 * 8, at / 2 % 2);
        multiply_values<T, HD, BN>(o, p, m.v + at % 2 * S::TILE_BYTES, j > 1);
        turn.end();
        wgmma_wait<1>();
        registers_ready(s);
        leave(m.k_empty + next % 2 * 8);
        rows.softmax(s, j * BN, keep);
        wgmma_wait<0>();
        registers_ready(o);
        leave(m.v_empty + at % 2 * 8);
#pragma unroll
        for (int i = 0; i < HD / 2; i++)
            o[i] *= keep[i / 2 % 2];
        to_operand<T, BN>(p, s);
    }
    barrier_wait(m.v_full + at % 2 * 8, at / 2 % 2);
    multiply_values<T, HD, BN>(o, p, m.v + at % 2 * S::TILE_BYTES, n > 1);
    wgmma_wait<0>();
    registers_ready(o);
    leave(m.v_empty + at % 2 * 8);
    if (!S::Q_IN_REGISTERS && threadIdx.x % 32 == 0)
        barrier_arrive(m.q_empty);
    rows.store(a, o);
    *fed = at + 1;
}

template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void compute_attention(const struct sm90_attention_args &p, const struct attention_smem &m)
{
    int wg = threadIdx.x / 128 - 1, fed = 0;
    struct turns<WGS> turn = {wg};
    if (WGS == 2 && wg == 1)
        named_arrive(2, 256);
    for (int at = 0;; at++) {
        barrier_wait(m.q_full, at % 2);
        int n_keys = *m.n_keys;
        if (n_keys == 0)
            return;
        compute_piece<T, HD, WGS, BN>(p.a, m, n_keys, wg, &fed, turn);
    }
}

#endif /* HAVE_SM90 */

template <typename T, int HD, int WGS, int BN>
__global__ void __launch_bounds__(128 * (WGS + 1), 1)
    attention_sm90_pieces(const __grid_constant__ CUtensorMap map, const __grid_constant__ struct sm90_attention_args p)
{
#if HAVE_SM90
    typedef attention_shape<HD, WGS, BN> S;
    extern __shared__ char raw[];
    uint32_t q = (smem_address(raw) + 1023) & ~1023u, k = q + S::Q_BYTES, v = k + S::STAGES * S::TILE_BYTES, bars = v + S::STAGES * S::TILE_BYTES;
    char *plain = raw + (bars - smem_address(raw)) + 80;
    struct attention_smem m = {q, k, v, bars, bars + 16, bars + 32, bars + 48, bars + 64, bars + 72, (volatile int *)plain, (volatile int2 *)(plain + 16)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) {
            barrier_init(m.k_full + i * 8, 128);
            barrier_init(m.v_full + i * 8, 128);
            barrier_init(m.k_empty + i * 8, WGS);
            barrier_init(m.v_empty + i * 8, WGS);
        }
        barrier_init(m.q_full, 128);
        barrier_init(m.q_empty, WGS * 4);
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        registers_lower<40>();
        feed_attention<T, HD, WGS, BN>(p, &map, m, *p.tiles.count * p.a.hk);
    } else {
        registers_raise<232>();
        compute_attention<T, HD, WGS, BN>(p, m);
    }
#endif
}

template <typename T, int HD, int WGS, int BN> static int start(struct cuda_ctx *c, const struct attention_args *a)
{
    typedef attention_shape<HD, WGS, BN> S;
    static bool ready;
    auto kernel = attention_sm90_pieces<T, HD, WGS, BN>;
    int r = ready ? 0 : CU(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::SMEM_BYTES));
    if (r < 0)
        return r;
    ready = true;
    struct sm90_attention_args p = {*a};
    r = attention_list_tiles(c, a, S::ROWS, &p.tiles);
    if (r < 0)
        return r;
    CUtensorMap map = {};
    p.tma = a->hd == HD && tensor_map_fits(a->kv, (size_t)4 * a->hk * a->hd);
    if (p.tma)   /* how many slots the pool has is not known here; the kernel names slots of the tables only */
        r = tensor_map(c, &map, c->k.act, a->kv, INT32_MAX, 2 * a->hk * a->hd, (size_t)2 * a->hk * a->hd, BN);
    if (r < 0)
        return r;
    kernel<<<c->n_sm, S::THREADS, S::SMEM_BYTES, c->stream>>>(map, p);
    return launched(&c->k, "attention_sm90");
}

template <typename T> static int choose(struct cuda_ctx *c, const struct attention_args *a)
{
    if (a->hd <= 64)
        return start<T, 64, 2, 128>(c, a);
    if (a->hd <= 96)
        return start<T, 96, 2, 128>(c, a);
    if (a->hd <= 128)
        return start<T, 128, 2, 128>(c, a);
    return start<T, 256, 2, 64>(c, a);
}

int attention_sm90(struct cuda_ctx *c, const struct attention_args *a)
{
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, a) : choose<__half>(c, a);
}
