/* Row lists and key places of one layer, in one pass: a block counts its 256 rows, tells its counts, and adds up what the blocks before it told.
 *
 * Three running counts a row: selected rows, rows with K and V, and rows that take a reserved slot. Keys count within a run only: a block tells
 * how many its last run has in it, and a block whose first row lies inside a run adds those up back to the block where the run starts. Blocks are
 * numbered in the order in which they start, so those that a block waits for are running or done. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

/* Of a block's rows; each at most THREADS. */
struct counts {
    int sel, key, take;
};

/* What a block tells, in one word: selected rows, rows that take a slot, keys of its last run; nonzero once told. */
enum { TOLD_BITS = 10, TOLD_MASK = (1 << TOLD_BITS) - 1 };
static __device__ __forceinline__ int told_word(int sel, int take, int last_keys)
{
    return 1 << 30 | sel << 2 * TOLD_BITS | take << TOLD_BITS | last_keys;
}

struct place_args {
    struct kern_step s;
    const unsigned char *route;
    bool kv_all;
    const int *base, *reserved;
    struct kern_place out;
    int *started, *finished; /* counters of blocks, and */
    int *told;               /* [blocks]; all zero before and after */
    int layer;
};

struct row_facts {
    int run, sel, key, take;
    struct kern_run of;
};

__device__ __forceinline__ struct row_facts row_flags(const struct place_args &a, int r, int n)
{
    struct row_facts f = {};
    if (r >= n)
        return f;
    f.run = a.s.run_of[r];
    f.of = a.s.runs[f.run];
    f.sel = !a.route || a.route[r];
    f.key = f.sel || a.kv_all;
    f.take = f.key && f.of.append;
    return f;
}

/* Counts of the block's rows before this thread's; `all`: of the whole block. */
__device__ static struct counts rows_before(const struct row_facts &f, struct counts *all)
{
    __shared__ struct counts warp[WARPS];
    unsigned sel = __ballot_sync(~0u, f.sel), key = __ballot_sync(~0u, f.key), take = __ballot_sync(~0u, f.take),
             below = (1u << threadIdx.x % 32) - 1;
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = {__popc(sel), __popc(key), __popc(take)};
    __syncthreads();
    struct counts c = {__popc(sel & below), __popc(key & below), __popc(take & below)};
    *all = {0, 0, 0};
    for (int w = 0; w < WARPS; w++) {
        if (w < threadIdx.x / 32)
            c = {c.sel + warp[w].sel, c.key + warp[w].key, c.take + warp[w].take};
        *all = {all->sel + warp[w].sel, all->key + warp[w].key, all->take + warp[w].take};
    }
    return c;
}

/* Sums of what the blocks before `block` told; `key`: from block `run_block` on. One warp. */
__device__ static struct counts blocks_before(const struct place_args &a, int block, int run_block)
{
    struct counts c = {0, 0, 0};
    for (int b = threadIdx.x; b < block; b += 32) {
        int word;
        while (!(word = *(volatile int *)&a.told[b]))
            ;
        c.sel += word >> 2 * TOLD_BITS & TOLD_MASK;
        c.take += word >> TOLD_BITS & TOLD_MASK;
        c.key += b >= run_block ? word & TOLD_MASK : 0;
    }
    return {__reduce_add_sync(~0u, c.sel), __reduce_add_sync(~0u, c.key), __reduce_add_sync(~0u, c.take)};
}

__device__ __forceinline__ void write_row(const struct place_args &a, int r, const struct row_facts &f, struct counts at, int key)
{
    int slot = f.take ? a.reserved[at.take] : -1;
    if (f.sel)
        a.out.sel[at.sel] = r;
    else
        a.out.rest[r - at.sel] = r;
    a.out.slot[r] = slot;
    if (r == f.of.row0)
        a.out.run_start[f.run] = at.sel;
    if (!f.key)
        return;
    a.out.visible[r] = a.base[f.run] + key + 1;
    if (f.of.append)
        a.s.tables[f.of.table_off + (int64_t)a.layer * f.of.table_cap + a.base[f.run] + key] = slot;
}

/* The last block to finish leaves zeros for the next launch. */
__device__ static void leave(const struct place_args &a)
{
    __shared__ bool last;
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(a.finished, 1) == gridDim.x - 1;
    __syncthreads();
    if (!last)
        return;
    for (int b = threadIdx.x; b < gridDim.x; b += THREADS)
        a.told[b] = 0;
    if (threadIdx.x == 0)
        *a.started = *a.finished = 0;
}

/* A block that has rows. */
__device__ static void place_block(const struct place_args &a, int block, int n)
{
    __shared__ int keys_before[THREADS];
    __shared__ struct counts before;
    int row0 = block * THREADS, r = row0 + threadIdx.x, end = n - row0 < THREADS ? n - row0 : THREADS;
    struct row_facts f = row_flags(a, r, n);
    struct counts all, mine = rows_before(f, &all);
    keys_before[threadIdx.x] = mine.key;
    __syncthreads();
    if (threadIdx.x == end - 1) { /* knows the block's last run */
        int first = f.of.row0 > row0 ? f.of.row0 - row0 : 0;
        *(volatile int *)&a.told[block] = told_word(all.sel, all.take, all.key - keys_before[first]);
    }
    if (threadIdx.x < 32) {
        struct counts c = blocks_before(a, block, __shfl_sync(~0u, f.of.row0, 0) / THREADS);
        if (threadIdx.x == 0)
            before = c;
    }
    __syncthreads();
    struct counts at = {before.sel + mine.sel, 0, before.take + mine.take};
    if (r < n)
        write_row(a, r, f, at, mine.key + (f.of.row0 < row0 ? before.key : -keys_before[f.of.row0 - row0]));
    if (r == n - 1) {
        *a.out.sel_n = a.out.run_start[a.s.n_runs] = before.sel + all.sel;
        *a.out.rest_n = n - before.sel - all.sel;
    }
}

__global__ void __launch_bounds__(THREADS) place_rows(struct place_args a)
{
    __shared__ int number;
    if (threadIdx.x == 0)
        number = atomicAdd(a.started, 1);
    __syncthreads();
    int n = rows_count(a.s.all), block = number;
    if (block * THREADS < n)
        place_block(a, block, n);
    else if (n == 0 && block == 0 && threadIdx.x == 0)
        *a.out.sel_n = *a.out.rest_n = a.out.run_start[a.s.n_runs] = 0;
    leave(a);
}

static int place_cuda(struct kern_ctx *k, const struct kern_step *s, int layer, const unsigned char *route, bool kv_all, const int *base,
                      const int *reserved, struct kern_place *ret)
{
    struct cuda_ctx *c = ctx_of(k);
    int blocks = s->all.n_max > THREADS ? div_up(s->all.n_max, THREADS) : 1;
    int *counters = cuda_counters(c, (size_t)blocks + 2);
    if (!counters)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    struct place_args a = {*s, route, kv_all, base, reserved, *ret, counters, counters + 1, counters + 2, layer};
    place_rows<<<blocks, THREADS, 0, c->stream>>>(a);
    return launched(k, "place");
}

void place_cuda_init(struct kern_ops *o)
{
    o->place = place_cuda;
}
