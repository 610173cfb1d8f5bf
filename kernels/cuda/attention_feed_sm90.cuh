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
#pragma unroll 8
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

/* The step row of packed row threadIdx.x of a tile, or -1. */
__device__ __forceinline__ int packed_row(const struct attention_args &a, const struct attention_tile &t)
{
    int group = a.h / a.hk, row = threadIdx.x >= t.rows ? -1 : t.row;
    if (row >= 0)
        row += (int)(t.first % group + threadIdx.x) / group;
    else if (threadIdx.x < t.rows)
        row = a.sel[t.start + (t.first + threadIdx.x) / group];
    return row;
}

/* The queries of a piece to `to`. Returns true if the copy engine brings them: where rows follow each other and are many. Else each warp copies its 32
 * packed rows. */
template <typename T, int HD, int WGS>
__device__ __forceinline__ bool feed_queries(const struct sm90_attention_args &p, const CUtensorMap *map, const struct attention_smem &m,
                                             const struct attention_tile &t, int kv_head, int row, uint32_t to, uint32_t full)
{
    typedef attention_shape<HD, WGS, 128> S;
    const struct attention_args &a = p.a;
    int group = a.h / a.hk;
    if (p.tma_q && t.row >= 0 && t.rows > S::ROWS / 2) {
        if (threadIdx.x == 0) {
            barrier_add_bytes(full, S::Q_BYTES);
            for (int i = 0; i < S::PANELS; i++)
                tma_load(to + i * S::ROWS * 128, map, i * 64, kv_head * group, t.row, full);
        }
        return true;
    }
    constexpr int CHUNKS = HD / 8;
    int lane = threadIdx.x % 32, head = kv_head * group + (t.first + threadIdx.x) % group;
    int from = row < 0 ? -1 : row * (a.h + 2 * a.hk) + head; /* in heads of qkv */
#pragma unroll 8
    for (int i = lane; i < 32 * CHUNKS; i += 32) {
        int r = threadIdx.x / 32 * 32 + i / CHUNKS, chunk = i % CHUNKS, source = __shfl_sync(~0u, from, i / CHUNKS);
        bool valid = source >= 0 && chunk * 8 < a.hd;
        copy16(to + chunk / 8 * S::ROWS * 128 + r * 128 + (chunk % 8 ^ r % 8) * 16,
               (const T *)a.qkv + (valid ? (size_t)source * a.hd + chunk * 8 : 0), valid);
    }
    return false;
}

/* What the computing warps must know of the packed rows of a piece. */
__device__ __forceinline__ void tell_rows(const struct attention_args &a, const struct attention_tile &t, int kv_head, int row, int visible,
                                          int2 *to)
{
    int group = a.h / a.hk, head = kv_head * group + (t.first + threadIdx.x) % group;
    to[threadIdx.x] = make_int2(row < 0 ? -1 : row * a.h + head, visible);
}

/* The tile of run i, of its one row; without rows where that does not attend. Unless rows are packed, it is row i, and no load waits for another's address. */
__device__ __forceinline__ struct attention_tile only_tile(const struct attention_args &a, int i)
{
    const struct kern_run *run = &a.runs[i];
    int from = a.run_start[i], to = a.run_start[i + 1], row = !a.packed ? i : to > from ? a.sel[from] : 0, visible = a.visible[row];
    return {0, 0, (to - from) * (a.h / a.hk), to > from ? visible : 0, run->table_cap, row, run->table_off};
}

/* The block's pieces one after the other. A tile is read by eight threads, a word each, while the one before it is told to all. The first number is fixed,
 * the others come from the counter; where there is no list, each is gridDim.x after the one before, and rows that do not attend are passed over. */
struct piece_plan {
    int number; /* of the piece that is told next: without a list thread 0's */
    int word;   /* its tile's, in the first eight threads */
    int asked;  /* number of the piece after it: thread 0's */

    __device__ __forceinline__ void read(const struct sm90_attention_args &p, int n, int total)
    {
        static_assert(sizeof(struct attention_tile) == 32, "eight words");
        number = n;
        if (!p.direct && threadIdx.x < 8)
            word = n < total ? ((const int *)&p.tiles.tile[n / p.a.hk])[threadIdx.x] : 0;
    }
    __device__ __forceinline__ void ask(const struct sm90_attention_args &p)
    {
        if (!p.direct && threadIdx.x == 0)
            asked = gridDim.x + atomicAdd(p.tiles.taken, 1);
    }
    /* The next piece's tile and head become those of `turn`; if there is none, a tile without rows. */
    __device__ __forceinline__ void tell(const struct sm90_attention_args &p, const struct attention_smem &m, int turn, int total)
    {
        struct attention_smem_plain *to = m.plain;
        if (p.direct && threadIdx.x == 0) {
            struct attention_tile t = {};
            while (number < total && (t = only_tile(p.a, number / p.a.hk)).rows == 0)
                number += gridDim.x;
            to->tile[turn % 4] = t;
            to->head[turn % 4] = number % p.a.hk;
            number += gridDim.x;
        }
        if (!p.direct && threadIdx.x < 8)
            ((int *)&to->tile[turn % 4])[threadIdx.x] = word;
        if (!p.direct && threadIdx.x == 0) {
            to->head[turn % 4] = number % p.a.hk;
            to->asked[turn % 2] = asked;
        }
        named_sync(1, 128);
        if (!p.direct)
            read(p, to->asked[turn % 2], total);
    }
};

/* What lies ahead is read ahead: the next piece's tile, its rows and the slots of its first block while this one is fed; within a piece the next block's slots. */
template <typename T, int HD, int WGS, int BN>
__device__ __forceinline__ void feed_attention(const struct sm90_attention_args &p, const CUtensorMap *map, const CUtensorMap *q_map,
                                               const struct attention_smem &m, int total)
{
    typedef attention_shape<HD, WGS, BN> S;
    static_assert(S::ROWS == 128, "a feeding thread a row");
    const struct attention_args &a = p.a;
    struct feeder<S::LAG> f = {
    };
    struct piece_plan plan;
    struct key_slots<BN> slots;
    int fed = 0; /* tiles of keys so far */
    plan.ask(p);
    plan.read(p, blockIdx.x, total);
    plan.tell(p, m, 0, total);
    int row = packed_row(a, m.plain->tile[0]);
    slots.read(m.plain->tile[0].slots(a), m.plain->tile[0].n_keys, 0);
    for (int turn = 0;; turn++) {
        const struct attention_tile &tile = m.plain->tile[turn % 4];
        int head = m.plain->head[turn % 4], n_keys = tile.n_keys, place = turn % S::Q_TILES, next_row = -1;
        int visible = row < 0 ? 0 : a.visible[row];
        uint32_t q_full = m.q_full + place * 8;
        if (n_keys > 0)
            plan.ask(p);
        barrier_wait(m.q_empty + place * 8, turn / S::Q_TILES % 2 ^ 1);
        bool whole_q = n_keys > 0 && feed_queries<T, HD, WGS>(p, q_map, m, tile, head, row, m.q + place * S::Q_BYTES, q_full);
        tell_rows(a, tile, head, row, visible, m.plain->row + place * S::ROWS);
        if (threadIdx.x == 0)
            m.plain->n_keys[place] = n_keys;
        if (whole_q)
            barrier_arrive(q_full);
        f.issued(whole_q ? 0 : q_full);
        if (n_keys == 0)
            break;
        for (int j0 = 0; j0 < n_keys; j0 += BN, fed++) {
            int first, k_stage = fed % S::K_STAGES, k_phase = fed / S::K_STAGES % 2, v_stage = fed % S::V_STAGES,
                       v_phase = fed / S::V_STAGES % 2, mine = slots.mine;
            bool whole = slots.whole(&first) && p.tma, more = j0 + BN < n_keys;
            if (more)
                slots.read(tile.slots(a), n_keys, j0 + BN);
            barrier_wait(m.k_empty + k_stage * 8, k_phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.k + k_stage * S::TILE_BYTES, m.k_full + k_stage * 8, 0, head, mine, first, whole,
                                 n_keys - j0);
            barrier_wait(m.v_empty + v_stage * 8, v_phase ^ 1);
            feed_tile<T, HD, BN>(p, map, &f, m.v + v_stage * S::TILE_BYTES, m.v_full + v_stage * 8, 1, head, mine, first, whole,
                                 n_keys - j0);
            const struct attention_tile &next = m.plain->tile[(turn + 1) % 4];
            if (j0 == 0) {
                plan.tell(p, m, turn + 1, total);
                next_row = packed_row(a, next);
            }
            if (!more)
                slots.read(next.slots(a), next.n_keys, 0);
        }
        if (n_keys <= BN || S::LAG == 1) /* else the queries are announced by now, and what follows waits for nothing pending */
            f.announce_all();
        row = next_row;
    }
    f.announce_all();
    if (!p.direct && threadIdx.x == 0)
        attention_end_block(p.tiles);
}

#endif /* HAVE_SM90 */
