/* Attention on Hopper where every run has one row, as in decoding, with the rotation that precedes it and the store of the row's own K and V.
 *
 * A block has one row and one KV head: a single warpgroup that brings keys in and computes. What was in the cache before the step waits for nothing of it, so
 * the first blocks of keys are asked for while kernels before this one still run (chain.cuh). The row's own K and V go into the cache and into the tile of the last
 * block. Products, softmax and sums are those of attention_compute_sm90.cuh in the same order: the same bits. */
#include "kernels/cuda/attention_compute_sm90.cuh"
#include "kernels/cuda/attention_feed_sm90.cuh"
#include "kernels/cuda/rope.cuh"

enum { FEW_THREADS = 128, GROUP_MAX = 64, HEAD_MAX = 256 };

struct few_attention_args {
    struct attention_args a;
    const float *cos, *sin; /* [max_pos, hd/2] */
    const int *pos, *slot;
    const int *base; /* [n_runs] keys of the run's sequence before the row, or as the op `follow` takes it: those need not be waited for */
};

/* STAGES: blocks of keys and values in shared memory. */
template <int HD, int BN, int STAGES> struct few_attention_shape {
    typedef attention_shape<HD, 1, BN> S;
    enum {
        STAGE_BYTES = 2 * S::TILE_BYTES,
        OWN_BYTES = 2 * HEAD_MAX * 2,
        SMEM_BYTES = 1024 + S::Q_BYTES + STAGES * STAGE_BYTES + OWN_BYTES
    };
};

#if HAVE_SM90

/* Where chunk `chunk` (8 elements) of row r lies in a tile of panels of `rows` rows. */
__device__ __forceinline__ int chunk_at(int rows, int r, int chunk)
{
    return chunk / 8 * rows * 128 + r * 128 + (chunk % 8 ^ r % 8) * 16;
}

template <typename T, int HD, int BN, int STAGES> struct few_row {
    typedef few_attention_shape<HD, BN, STAGES> F;
    typedef typename F::S S;
    const struct few_attention_args &p;
    int i, kv_head;   /* of the step's rows; */
    const int *slots; /* of the run's keys in the layer */
    char *raw;        /* where `q` is */
    uint32_t q, tiles;
    T *own; /* K and V of the row, [2, hd] */

    /* A block of the `stored` keys, and zeros behind them, where more keys may come. */
    __device__ __forceinline__ void load(int block, int stored)
    {
        int j0 = block * BN, lane = threadIdx.x % 32, row = threadIdx.x / 32 * (BN / 4) + lane % (BN / 4);
        uint32_t to = tiles + block % STAGES * F::STAGE_BYTES;
        if (block < STAGES || j0 <= stored) {
            int slot = j0 + row < stored ? slots[j0 + row] : 0;
            copy_rows16<T, HD, BN>(p.a, to, 0, kv_head, slot, stored - j0);
            copy_rows16<T, HD, BN>(p.a, to + S::TILE_BYTES, 1, kv_head, slot, stored - j0);
        }
        copy_commit();
    }

    __device__ __forceinline__ T *query(int r, int column) { return (T *)(raw + chunk_at(S::ROWS, r, column / 8)) + column % 8; }

    /* Zeros where no query will be. */
    __device__ __forceinline__ void clear_queries(int group)
    {
        for (int c = threadIdx.x; c < S::ROWS * HD / 8; c += FEW_THREADS)
            if (c / (HD / 8) >= group || c % (HD / 8) * 8 >= p.a.hd)
                *(uint4 *)query(c / (HD / 8), c % (HD / 8) * 8) = make_uint4(0, 0, 0, 0);
    }

    /* The rotated queries into their tile, K and V of the row into `own`, and into the cache if they have a slot. */
    __device__ __forceinline__ void take_row(int group, int slot)
    {
        int hd = p.a.hd, half = hd / 2, quads = half / 4, h = p.a.h, hk = p.a.hk;
        const T *row = (const T *)p.a.qkv + (size_t)i * (h + 2 * hk) * hd;
        size_t at = (size_t)p.pos[i] * half, width = (size_t)hk * hd;
        T *cache = (T *)p.a.kv + (size_t)(slot < 0 ? 0 : slot) * 2 * width + (size_t)kv_head * hd;
        for (int n = threadIdx.x; n < (group + 1) * quads; n += FEW_THREADS) {
            int r = n / quads, j = n % quads * 4, head = r < group ? kv_head * group + r : h + kv_head;
            float lo[4], hi[4];
            rotated4(lo, hi, row + (size_t)head * hd + j, p.cos + at + j, p.sin + at + j, half);
            store4(r < group ? query(r, j) : own + j, lo);
            store4(r < group ? query(r, half + j) : own + half + j, hi);
            if (r == group && slot >= 0) {
                store4(cache + j, lo);
                store4(cache + half + j, hi);
            }
        }
        for (int j = threadIdx.x * 4; j < hd; j += FEW_THREADS * 4) {
            vec4<T> v = *(const vec4<T> *)(row + (size_t)(h + hk + kv_head) * hd + j);
            *(vec4<T> *)(own + hd + j) = v;
            if (slot >= 0)
                *(vec4<T> *)(cache + width + j) = v;
        }
    }

    /* Rows from..to-1 of the keys into their block's tiles: that of the row itself from `own` if it is the last and new, others from the cache. */
    __device__ __forceinline__ void add_keys(int block, int from, int to, int own_key)
    {
        int chunks = p.a.hd / 8;
        char *tile = raw + (tiles - q) + block % STAGES * F::STAGE_BYTES;
        __syncthreads(); /* others' copies have put zeros there */
        for (int n = threadIdx.x; n < (to - from) * 2 * chunks; n += FEW_THREADS) {
            int key = from + n / (2 * chunks), part = n / chunks % 2, chunk = n % chunks;
            const T *cached = (const T *)p.a.kv + ((size_t)slots[key] * 2 + part) * p.a.hk * p.a.hd + (size_t)kv_head * p.a.hd;
            const uint4 *from16 = (const uint4 *)((key == own_key ? own + part * p.a.hd : cached) + chunk * 8);
            *(uint4 *)(tile + part * S::TILE_BYTES + chunk_at(BN, key - block * BN, chunk)) = *from16;
        }
    }
};

/* The rows of a warpgroup's tile: `group` queries of one row, which sees n_keys keys. */
__device__ __forceinline__ struct query_rows few_rows(const struct attention_args &a, int i, int kv_head, int n_keys)
{
    struct query_rows rows;
    int group = a.h / a.hk, base = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    rows.all_see = rows.n_keys = n_keys;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        bool is = base + h * 8 < group;
        rows.row[h] = is ? i * a.h + kv_head * group + base + h * 8 : -1;
        rows.visible[h] = is ? n_keys : 0;
        rows.max[h] = -CUDART_INF_F;
        rows.sum[h] = 0;
    }
    return rows;
}

/* Blocks 0.. of the keys, of which the first `before` were asked for, as far as they fit; `stored` are in the cache now, and one more is the row's own if it is new. */
template <typename T, int HD, int BN, int STAGES>
__device__ __forceinline__ void attend(struct few_row<T, HD, BN, STAGES> &b, int n_keys, int before, int stored)
{
    typedef few_attention_shape<HD, BN, STAGES> F;
    struct query_rows rows = few_rows(b.p.a, b.i, b.kv_head, n_keys);
    struct queries<HD, 1> q;
    float s[BN / 2], o[HD / 2], keep[2], scale_log2 = b.p.a.scale * 1.4426950408889634f;
    for (int block = 0, j0 = 0; j0 < n_keys; block++, j0 += BN) {
        uint32_t k = b.tiles + block % STAGES * F::STAGE_BYTES, weights[BN / 16][4];
        int from = block < STAGES ? before : stored, to = n_keys < j0 + BN ? n_keys : j0 + BN;
        copy_wait<STAGES - 1>();
        from = from > j0 ? from : j0;
        if (from < to)
            b.add_keys(block, from, to, stored < n_keys ? stored : -1);
        proxy_fence();
        __syncthreads();
        q.load(b.q, 0); /* for every block: ptxas 13.0 gives registers that hold operands over the loop to others (head size 128) */
        multiply_keys<T, HD, 1, BN>(s, q, k);
        wgmma_wait<0>();
        registers_ready(s);
        rows.softmax(s, j0, scale_log2, keep);
        if (block > 0 && !__all_sync(~0u, keep[0] == 1 && keep[1] == 1))
#pragma unroll
            for (int i = 0; i < HD / 2; i++)
                o[i] *= keep[i / 2 % 2];
        to_operand<T, BN>(weights, s);
        multiply_values<T, HD, BN>(o, weights, k + F::S::TILE_BYTES, block > 0);
        wgmma_wait<0>();
        registers_ready(o);
        __syncthreads();
        b.load(block + STAGES, stored);
    }
    struct finished_rows done;
    done.take(rows);
    done.store<T>(b.p.a, o);
}

#endif

template <typename T, int HD, int BN, int STAGES>
__global__ void __launch_bounds__(FEW_THREADS, STAGES == 2 ? 3 : 1) attention_few_rows(const __grid_constant__ struct few_attention_args p)
{
#if HAVE_SM90
    typedef few_attention_shape<HD, BN, STAGES> F;
    extern __shared__ char memory[];
    uint32_t q = (smem_address(memory) + 1023) & ~1023u;
    char *raw = memory + (q - smem_address(memory));
    int i = blockIdx.x / p.a.hk, group = p.a.h / p.a.hk, base = p.base[i];
    const struct kern_run *run = &p.a.runs[i];
    struct few_row<T, HD, BN, STAGES> b = {
        p, i, (int)blockIdx.x % p.a.hk, p.a.tables + run->table_off + (int64_t)p.a.layer * run->table_cap, raw, q, q + F::S::Q_BYTES,
            (T *)(raw + F::S::Q_BYTES + STAGES * F::STAGE_BYTES)
    };
    int before = base < 0 ? -1 - base : base;
    bool append = run->append;
    chain_start_next();
    for (int block = 0; block < STAGES; block++)
        b.load(block, before);
    b.clear_queries(group);
    chain_wait();
    bool attends = p.a.run_start[i + 1] > p.a.run_start[i];
    int slot = p.slot[i], n_keys = attends ? p.a.visible[i] : 0;
    b.take_row(group, slot); /* whatever the row does: its loads wait for nothing else */
    if (attends)
        attend(b, n_keys, before, append ? n_keys - 1 : n_keys);
    copy_wait<0>();
#endif
}

template <typename T, int HD, int BN, int STAGES> static int start(struct cuda_ctx *c, const struct few_attention_args *p)
{
    typedef few_attention_shape<HD, BN, STAGES> F;
    auto kernel = attention_few_rows<T, HD, BN, STAGES>;
    int r = cuda_allow_shared(c, (const void *)kernel, F::SMEM_BYTES);
    if (r < 0)
        return r;
    chain_launch(c, kernel, p->a.n_runs * p->a.hk, FEW_THREADS, F::SMEM_BYTES, *p);
    return launched(&c->k, "attention_few_sm90");
}

/* Where there are more blocks than multiprocessors, two or three share one. */
template <typename T> static int choose(struct cuda_ctx *c, const struct few_attention_args *p)
{
    if (p->a.hd <= 64)
        return p->a.n_runs * p->a.hk > c->n_sm ? start<T, 64, 128, 2>(c, p) : start<T, 64, 128, 4>(c, p);
    if (p->a.hd <= 96)
        return start<T, 96, 128, 3>(c, p);
    if (p->a.hd <= 128)
        return start<T, 128, 128, 3>(c, p);
    return start<T, 256, 64, 3>(c, p);
}

static int rope_attention_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, struct dev_act *qkv,
                               const struct dev_f32 *cos, const struct dev_f32 *sin, const struct kern_step *s, int layer,
                               const struct kern_place *to, const struct dev_i32 *base, float scale)
{
    struct cuda_ctx *c = ctx_of(k);
    if (k->act == DTYPE_F32 || c->level != CUDA_WGMMA || s->n_runs != s->all.n_max || s->all.n_dev || s->n_runs == 0 ||
        hs->h / hs->hk > GROUP_MAX)
        return 0;
    struct few_attention_args p = {
        attention_args_of(hs, out, qkv, s, layer, to, scale), f32_of(cos), f32_of(sin), i32_of(s->pos), i32_of(to->slot), i32_of(base)};
    int r = k->act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, &p) : choose<__half>(c, &p);
    return r < 0 ? r : 1;
}

void attention_few_cuda_init(struct kern_ops *o)
{
    o->rope_attention = rope_attention_cuda;
}
