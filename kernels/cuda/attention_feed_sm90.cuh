/* The feeding warpgroup of attention: brings queries and key blocks into shared memory, blocks through the copy engine where their slots follow each other,
 * else row by row. */
#pragma once
#include "kernels/cuda/attention_sm90.cuh"

#if HAVE_SM90

/* Row-wise copies are announced late: while one tile's copies run, those of the next LAG tiles are issued. */
template <int LAG> struct feeder {
    uint32_t pending[LAG]; /* barriers of the last tiles, the latest first; 0: nothing to announce */
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
    int all[BN / 32], mine; /* keys lane, lane + 32, ..; this lane's in its warp's share of rows */
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

/* The step row of packed row threadIdx.x of a tile, or -1. Where runs have one row, the tile's `start` is that row. */
__device__ __forceinline__ int packed_row(const struct sm90_attention_args &p, const struct attention_tile &t)
{
    if (threadIdx.x >= t.rows)
        return -1;
    return p.direct ? t.start : p.a.sel[t.start + (t.first + threadIdx.x) / (p.a.h / p.a.hk)];
}

/* Keys that step row `row` of a tile sees. */
__device__ __forceinline__ int keys_seen(const struct sm90_attention_args &p, const struct attention_tile &t, int row)
{
    return row < 0 ? 0 : p.direct ? t.n_keys : p.a.visible[row];
}

/* The queries of a piece: each warp its 32 packed rows, with what the computing warps must know of them. */
template <typename T, int HD, int ROWS>
__device__ __forceinline__ void feed_queries(const struct attention_args &a, const struct attention_smem &m, const struct attention_tile &t,
                                             int kv_head, int row, int visible)
{
    constexpr int CHUNKS = HD / 8;
    int lane = threadIdx.x % 32, group = a.h / a.hk, head = kv_head * group + (t.first + threadIdx.x) % group;
    int from = row < 0 ? -1 : row * (a.h + 2 * a.hk) + head; /* in heads of qkv */
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

/* The tile of run i, of its one row; without rows where that does not attend. Unless rows are packed, it is row i, and no load waits for another's address. */
__device__ __forceinline__ struct attention_tile only_tile(const struct attention_args &a, int i)
{
    const struct kern_run *run = &a.runs[i];
    int from = a.run_start[i], to = a.run_start[i + 1], row = !a.packed ? i : to > from ? a.sel[from] : 0, visible = a.visible[row];
    return {row, 0, (to - from) * (a.h / a.hk), to > from ? visible : 0, run->table_cap, run->table_off};
}

/* The block's pieces one after the other, with their tiles. The first number is fixed, the others come from the counter, asked for one turn ahead; where there is no
 * list, each is gridDim.x after the one before, and rows that do not attend are passed over. */
struct piece_numbers {
    int asked; /* the number that the next turn gets: thread 0's; without a list that of all threads */

    __device__ __forceinline__ struct attention_tile tile_of(const struct sm90_attention_args &p, int *number, int total)
    {
        struct attention_tile t = {};
        if (!p.direct)
            return *number < total ? p.tiles.tile[*number / p.a.hk] : t;
        while (*number < total && (t = only_tile(p.a, *number / p.a.hk)).rows == 0)
            *number += gridDim.x;
        asked = *number + gridDim.x;
        return t;
    }
    __device__ __forceinline__ struct attention_tile first(const struct sm90_attention_args &p, int *number, int total)
    {
        *number = blockIdx.x;
        if (!p.direct)
            asked = gridDim.x + (threadIdx.x ? 0 : atomicAdd(p.tiles.taken, 1));
        return tile_of(p, number, total);
    }
    __device__ __forceinline__ struct attention_tile take(const struct sm90_attention_args &p, const struct attention_smem &m, int turn,
                                                          int *number, int total)
    {
        *number = asked;
        if (!p.direct) {
            if (threadIdx.x == 0) {
                m.number[turn % 2] = asked;
                asked = gridDim.x + atomicAdd(p.tiles.taken, 1);
            }
            named_sync(1, 128);
            *number = m.number[turn % 2];
        }
        return tile_of(p, number, total);
    }
};

/* What lies ahead is read ahead: the tile after next, the next one's rows, the next block's slots. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void feed_attention(const struct sm90_attention_args &p, const CUtensorMap *map, const struct attention_smem &m,
                                               int total)
{
    typedef attention_shape<HD, WGS, BN> S;
    static_assert(S::ROWS == 128, "a feeding thread a row");
    const struct attention_args &a = p.a;
    struct feeder<S::STAGES >= 3 ? 3 : 1> f = {
    };
    struct piece_numbers numbers;
    int number, fed = 0; /* fed: tiles so far; stage = fed % STAGES, phase = fed / STAGES % 2 */
    struct attention_tile tile = numbers.first(p, &number, total);
    int head = number % a.hk, row = packed_row(p, tile), visible = keys_seen(p, tile, row);
    struct attention_tile next = numbers.take(p, m, 1, &number, total);
    for (int turn = 0;; turn++) {
        int next_head = number % a.hk, next_row = packed_row(p, next), next_visible = 0;
        struct key_slots<BN> slots;
        slots.read(tile.slots(a), tile.n_keys, 0);
        struct attention_tile after = numbers.take(p, m, turn, &number, total);
        barrier_wait(m.q_empty, turn % 2 ^ 1);
        feed_queries<T, HD, S::ROWS>(a, m, tile, head, row, visible);
        f.issued(m.q_full);
        if (tile.n_keys == 0)
            break;
        for (int j0 = 0; j0 < tile.n_keys; j0 += BN, fed++) {
            int first, stage = fed % S::STAGES, phase = fed / S::STAGES % 2, mine = slots.mine;
            bool whole = slots.whole(&first) && p.tma;
            slots.read(tile.slots(a), tile.n_keys, j0 + BN);
            barrier_wait(m.k_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.k + stage * S::TILE_BYTES, m.k_full + stage * 8, 0, head, mine, first, whole,
                                 tile.n_keys - j0);
            barrier_wait(m.v_empty + stage * 8, phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.v + stage * S::TILE_BYTES, m.v_full + stage * 8, 1, head, mine, first, whole,
                                 tile.n_keys - j0);
            if (j0 == 0)
                next_visible = keys_seen(p, next, next_row);
        }
        if (tile.n_keys <= BN || S::STAGES < 3) /* else the queries are announced by now, and what follows waits for nothing pending */
            f.announce_all();
        tile = next;
        head = next_head;
        row = next_row;
        visible = next_visible;
        next = after;
    }
    f.announce_all();
    if (!p.direct && threadIdx.x == 0)
        attention_end_block(p.tiles);
}

#endif /* HAVE_SM90 */
