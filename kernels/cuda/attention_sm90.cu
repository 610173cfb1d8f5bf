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
        STAGES = HD <= 64 ? 4 : HD <= 128 ? 3 : 2, Q_BYTES = PANELS * ROWS * 128, Q_IN_REGISTERS = HD <= 128,
        SMEM_BYTES = 1024 + Q_BYTES + 2 * STAGES * TILE_BYTES + ROWS * 8 + 192,
        FEED_REGISTERS = 56, COMPUTE_REGISTERS = 224
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
    uint32_t k_full, k_empty, v_full, v_empty;          /* barriers, STAGES each */
    uint32_t q_full, q_empty;                           /* one each */
    volatile int *n_keys;                               /* [1] of the piece; 0: no more */
    volatile int *number;                               /* [2] of a piece, among the feeding threads */
    volatile int2 *row;                                 /* [ROWS] (row of `out` in heads, or -1; keys it sees) */
};

/* ---- the feeding warpgroup ---- */

/* Row-wise copies are announced late: while one tile's copies run, those of the next LAG tiles are issued. */
template <int LAG> struct feeder {
    uint32_t pending[LAG];     /* barriers of the last tiles, the latest first; 0: nothing to announce */
    /* A tile's copies have been issued; `bar` announces them (0: the copy engine does). */
    __device__ __forceinline__ void issued(uint32_t bar)
    {
        copy_commit();
        announce<LAG>(pending[LAG - 1]);
#pragma unroll
        for (int i = LAG - 1; i > 0; i--)
            pending[i] = pending[i - 1];
        pending[0] = bar;
    }
    __device__ __forceinline__ void announce_all()
    {
#pragma unroll
        for (int i = LAG - 1; i >= 0; i--) {
            announce<0>(pending[i]);
            pending[i] = 0;
        }
    }
    template <int RUNNING> __device__ __forceinline__ void announce(uint32_t bar)
    {
        if (bar) {
            copy_wait<RUNNING>();
            proxy_fence();
            barrier_arrive(bar);
        }
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

template <typename T, int HD, int BN, typename F>
__device__ __forceinline__ void feed_tile(const struct sm90_attention_args &p, const CUtensorMap *map, F *f, uint32_t dst, uint32_t bar,
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
    f->issued(whole ? 0 : bar);
}

/* The slots of a block's keys: read a block ahead, looked at when their turn comes. */
template <int BN> struct key_slots {
    int all[BN / 32], mine;    /* keys lane, lane + 32, ..; this lane's in its warp's share of rows */
    __device__ __forceinline__ void read(const int *slots, int n_keys, int j0)
    {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp * (BN / 4) + lane % (BN / 4);
#pragma unroll
        for (int i = 0; i < BN / 32; i++)
            all[i] = j0 + i * 32 + lane < n_keys ? slots[j0 + i * 32 + lane] : -1;
        mine = j0 + row < n_keys ? slots[j0 + row] : 0;
    }
    /* Every key of the block exists, and each slot follows the one before? */
    __device__ __forceinline__ bool whole(int *first) const
    {
        bool follow = true;
        *first = __shfl_sync(~0u, all[0], 0);
#pragma unroll
        for (int i = 0; i < BN / 32; i++)
            follow = follow && all[i] == *first + i * 32 + (int)(threadIdx.x % 32);
        return __all_sync(~0u, follow);
    }
};

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
}

/* Numbers of the block's pieces: the first is fixed, the others come from the counter, asked for one turn ahead. */
struct piece_numbers {
    int asked;                 /* thread 0: the number that the next turn gets */
    __device__ __forceinline__ int take(const struct sm90_attention_args &p, const struct attention_smem &m, int turn)
    {
        if (threadIdx.x == 0) {
            m.number[turn % 2] = asked;
            asked = gridDim.x + atomicAdd(p.tiles.taken, 1);
        }
        named_sync(1, 128);
        return m.number[turn % 2];
    }
};

/* What lies ahead is read ahead: the tile after next, the next one's rows, the next block's slots. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void feed_attention(const struct sm90_attention_args &p, const CUtensorMap *map, const struct attention_smem &m, int total)
{
    typedef attention_shape<HD, WGS, BN> S;
    static_assert(S::ROWS == 128, "a feeding thread a row");
    const struct attention_args &a = p.a;
    const struct attention_tile none = {0, 0, 0, 0, 0};
    struct feeder<S::STAGES >= 3 ? 3 : 1> f = {};
    struct piece_numbers numbers = {(int)(gridDim.x + (threadIdx.x ? 0 : atomicAdd(p.tiles.taken, 1)))};
    int number = blockIdx.x, head = number % a.hk, fed = 0;   /* fed: tiles so far; stage = fed % STAGES, phase = fed / STAGES % 2 */
    struct attention_tile tile = number < total ? p.tiles.tile[number / a.hk] : none;
    int row = packed_row(a, tile), visible = row >= 0 ? a.visible[row] : 0;
    number = numbers.take(p, m, 1);
    struct attention_tile next = number < total ? p.tiles.tile[number / a.hk] : none;
    for (int turn = 0;; turn++) {
        int next_head = number % a.hk, next_row = packed_row(a, next), next_visible = 0;
        struct key_slots<BN> slots;
        slots.read(a.tables + tile.slots, tile.n_keys, 0);
        number = numbers.take(p, m, turn);
        struct attention_tile after = number < total ? p.tiles.tile[number / a.hk] : none;
        barrier_wait(m.q_empty, turn % 2 ^ 1);
        feed_queries<T, HD, S::ROWS>(a, m, tile, head, row, visible);
        f.issued(m.q_full);
        if (tile.n_keys == 0)
            break;
        for (int j0 = 0; j0 < tile.n_keys; j0 += BN, fed++) {
            int first, stage = fed % S::STAGES, phase = fed / S::STAGES % 2, mine = slots.mine;
            bool whole = slots.whole(&first) && p.tma;
            slots.read(a.tables + tile.slots, tile.n_keys, j0 + BN);
            barrier_wait(m.k_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.k + stage * S::TILE_BYTES, m.k_full + stage * 8, 0, head, mine, first, whole, tile.n_keys - j0);
            barrier_wait(m.v_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.v + stage * S::TILE_BYTES, m.v_full + stage * 8, 1, head, mine, first, whole, tile.n_keys - j0);
            if (j0 == 0)
                next_visible = next_row >= 0 ? a.visible[next_row] : 0;
        }
        if (tile.n_keys <= BN || S::STAGES < 3)   /* else the queries are announced by now, and what follows waits for nothing pending */
            f.announce_all();
        tile = next;
        head = next_head;
        row = next_row;
        visible = next_visible;
        next = after;
    }
    f.announce_all();
}

/* ---- the computing warpgroups ---- */

/* Reads of these registers stay behind the wait before. */
template <int N> __device__ __forceinline__ void registers_ready(float (&d)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* One thread's two packed rows (lane/4 and lane/4 + 8 of the warp's 16) of a piece. */
struct query_rows {
    int row[2], visible[2];    /* row of `out` in heads, or -1 */
    int all_see, n_keys;       /* keys that every row of the warpgroup sees, and keys that any of the tile sees; n_keys 0: no piece */
    float max[2], sum[2];

    __device__ __forceinline__ void load(const struct attention_smem &m, int wg)
    {
        int base = wg * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
        n_keys = *m.n_keys;
        all_see = m.row[wg * 64].y;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            row[i] = m.row[base + i * 8].x;
            visible[i] = m.row[base + i * 8].y;
            max[i] = -CUDART_INF_F;
            sum[i] = 0;
        }
    }

    /* s (scores of keys j0..) becomes exp2 of scaled scores less the row's maximum; keep: what earlier sums must be multiplied with. */
    template <int BN> __device__ __forceinline__ void softmax(float (&s)[BN], int j0, float scale_log2, float keep[2])
    {
        int lane = threadIdx.x % 32;
        if (j0 + 2 * BN > all_see)
#pragma unroll
            for (int i = 0; i < BN; i++)
                if (j0 + i / 4 * 8 + lane % 4 * 2 + i % 2 >= visible[i / 2 % 2])
                    s[i] = -CUDART_INF_F;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float tops[4] = {max[h], max[h], max[h], max[h]};   /* four chains: two warps a scheduler hide little latency */
#pragma unroll
            for (int i = 0; i < BN / 4; i++)
                tops[i % 4] = fmaxf(tops[i % 4], fmaxf(s[i * 4 + h * 2], s[i * 4 + h * 2 + 1]));
            float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            float shift = top == -CUDART_INF_F ? 0 : top * scale_log2;
            keep[h] = top == max[h] ? 1 : exp2_fast(fmaf(max[h], scale_log2, -shift));   /* shift is rounded: without a new maximum this must be 1 */
            max[h] = top;
            float add[4] = {};
#pragma unroll
            for (int i = 0; i < BN / 2; i++) {
                float &x = s[i / 2 * 4 + h * 2 + i % 2];
                x = exp2_fast(fmaf(x, scale_log2, -shift));
                add[i % 4] += x;
            }
            sum[h] = fmaf(sum[h], keep[h], (add[0] + add[1]) + (add[2] + add[3]));
        }
    }

    template <typename T, int O> __device__ __forceinline__ void store(const struct attention_args &a, const float (&o)[O]) const
    {
        int lane = threadIdx.x % 32;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float total = sum[h] + __shfl_xor_sync(~0u, sum[h], 1);
            total += __shfl_xor_sync(~0u, total, 2);
            if (row[h] < 0)
                continue;
            float inverse = __fdividef(1.0f, total);
            T *out = (T *)a.out + (size_t)row[h] * a.hd;
#pragma unroll
            for (int i = 0; i < O / 4; i++) {
                int c = i * 8 + lane % 4 * 2;
                if (c < a.hd)
                    *(uint32_t *)(out + c) = pack2<T>(o[i * 4 + h * 2] * inverse, o[i * 4 + h * 2 + 1] * inverse);
            }
        }
    }
};

/* A warpgroup's queries as operands: in registers, or left in shared memory where registers are short. */
template <int HD, int WGS> struct queries {
    typedef attention_shape<HD, WGS, 128> S;
    uint32_t q[S::Q_IN_REGISTERS ? HD / 16 : 1][4], tile;
    __device__ __forceinline__ void load(const struct attention_smem &m, int wg)
    {
        int lane = threadIdx.x % 32, r = wg * 64 + threadIdx.x / 32 % 4 * 16 + lane % 16;
        tile = m.q + wg * 64 * 128;
        if constexpr (S::Q_IN_REGISTERS) {
#pragma unroll
            for (int t = 0; t < HD / 16; t++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(q[t][0]), "=r"(q[t][1]), "=r"(q[t][2]), "=r"(q[t][3])
                             : "r"(m.q + t / 4 * S::ROWS * 128 + r * 128 + ((t % 4 * 2 + lane / 16) ^ r % 8) * 16) : "memory");
        }
    }
};

/* The operand in registers is not overwritten before the wait that came before. */
template <int N> __device__ __forceinline__ void operand_ready(uint32_t (&p)[N][4])
{
#pragma unroll
    for (int i = 0; i < N * 4; i++)
        asm volatile("" : "+r"(p[i / 4][i % 4])::"memory");
}

template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void multiply_keys(float (&s)[BN / 2], const struct queries<HD, WGS> &q, uint32_t k)
{
    typedef attention_shape<HD, WGS, BN> S;
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < HD / 16; t++) {
        uint64_t keys = tile_k_major(k + t / 4 * BN * 128) + t % 4 * 2;
        if constexpr (S::Q_IN_REGISTERS)
            wgmma<T, BN>::template rs<0>(s, q.q[t], keys, t > 0);
        else
            wgmma<T, BN>::ss(s, tile_k_major(q.tile + t / 4 * S::ROWS * 128) + t % 4 * 2, keys, t > 0);
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

__device__ __forceinline__ void leave_queries(const struct attention_smem &m)
{
    __syncwarp();
    if (threadIdx.x % 32 == 0)
        barrier_arrive(m.q_empty);
}

/* Waits for the next piece and takes its rows and queries. */
template <int HD, int WGS>
__device__ __forceinline__ void take_piece(const struct attention_smem &m, int piece, int wg, struct query_rows *rows, struct queries<HD, WGS> *q)
{
    barrier_wait(m.q_full, piece % 2);
    rows->load(m, wg);
    q->load(m, wg);
    if (attention_shape<HD, WGS, 128>::Q_IN_REGISTERS)
        leave_queries(m);
}

/* Blocks of all pieces as one stream: the product with the keys of the next block, be it the next piece's first, and the softmax that
 * follows it run beside the product with the values of this one. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void compute_attention(const struct sm90_attention_args &p, const struct attention_smem &m)
{
    typedef attention_shape<HD, WGS, BN> S;
    int wg = threadIdx.x / 128 - 1, piece = 0, at = 0, j0 = 0;   /* at: tiles consumed; j0: first key of the present block */
    float s[BN / 2], o[HD / 2], keep[2], scale_log2 = p.a.scale * 1.4426950408889634f;
    uint32_t weights[BN / 16][4];
    bool finished = false;     /* the product that runs is of a piece's last block: `done` are its rows */
    struct turns<WGS> turn = {wg};
    struct query_rows rows, done;
    struct queries<HD, WGS> q;
    if (WGS == 2 && wg == 1)
        named_arrive(2, 256);
    take_piece(m, piece++, wg, &rows, &q);
    if (rows.n_keys == 0)
        return;
    barrier_wait(m.k_full, 0);
    turn.begin();
    multiply_keys<T, HD, WGS, BN>(s, q, m.k);
    turn.end();
    wgmma_wait<0>();
    registers_ready(s);
    leave(m.k_empty);
    if (!S::Q_IN_REGISTERS && rows.n_keys <= BN)
        leave_queries(m);
    rows.softmax(s, 0, scale_log2, keep);
    for (;; at++) {   /* s: weights of block `at`; the product of the block before it is still running */
        int stage = at % S::STAGES, phase = at / S::STAGES % 2, next_stage = (at + 1) % S::STAGES, next_phase = (at + 1) / S::STAGES % 2;
        wgmma_wait<0>();
        registers_ready(o);
        operand_ready(weights);
        if (at > 0)
            leave(m.v_empty + (at - 1) % S::STAGES * 8);
        if (finished)
            done.store<T>(p.a, o);
        else if (!__all_sync(~0u, keep[0] == 1 && keep[1] == 1))   /* most blocks bring no new maximum */
#pragma unroll
            for (int i = 0; i < HD / 2; i++)
                o[i] *= keep[i / 2 % 2];
        to_operand<T, BN>(weights, s);
        int add = j0 > 0;
        finished = j0 + BN >= rows.n_keys;
        j0 = finished ? 0 : j0 + BN;
        if (finished) {
            done = rows;
            take_piece(m, piece++, wg, &rows, &q);
        }
        barrier_wait(m.v_full + stage * 8, phase);
        if (rows.n_keys == 0) {
            multiply_values<T, HD, BN>(o, weights, m.v + stage * S::TILE_BYTES, add);
            break;
        }
        barrier_wait(m.k_full + next_stage * 8, next_phase);
        turn.begin();
        multiply_keys<T, HD, WGS, BN>(s, q, m.k + next_stage * S::TILE_BYTES);
        multiply_values<T, HD, BN>(o, weights, m.v + stage * S::TILE_BYTES, add);
        turn.end();
        wgmma_wait<1>();
        registers_ready(s);
        leave(m.k_empty + next_stage * 8);
        if (!S::Q_IN_REGISTERS && j0 + BN >= rows.n_keys)
            leave_queries(m);
        /* Last in the loop's body: within one, the assembler moves the exponentials behind the wait for the values' product. */
        rows.softmax(s, j0, scale_log2, keep);
    }
    wgmma_wait<0>();
    registers_ready(o);
    done.store<T>(p.a, o);
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
    char *plain = raw + (bars - smem_address(raw)) + 144;
    struct attention_smem m = {q, k, v, bars, bars + 32, bars + 64, bars + 96, bars + 128, bars + 136, (volatile int *)plain,
                               (volatile int *)plain + 1, (volatile int2 *)(plain + 16)};
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
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
        registers_lower<S::FEED_REGISTERS>();
        feed_attention<T, HD, WGS, BN>(p, &map, m, *p.tiles.count * p.a.hk);
    } else {
        registers_raise<S::COMPUTE_REGISTERS>();
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
