/* Row lists and key places of a layer, or of several at once, in one pass: a block counts its 256 rows, tells its counts, and adds up what the blocks before it told.
 *
 * Of the four running counts (place.cuh) that of keys is of a run: a block tells how many its last run has in it, and a block whose first row lies inside a run
 * adds those up back to the block where the run starts. Blocks are numbered in the order in which they start, so those that a block waits for are running
 * or done. */
#include "kernels/cuda/place.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

/* What a block tells, in one word: the counts of its rows, but of the keys those of its last run; nonzero once told. */
typedef unsigned long long told_word;
enum { TOLD_BITS = 16, TOLD_MASK = (1 << TOLD_BITS) - 1 };
static constexpr told_word TOLD = 1ull << 15; /* a bit that no count needs */
static_assert(THREADS < 1 << 15, "a count leaves it free");

static __device__ __forceinline__ told_word told_counts(const struct place_counts &c)
{
    return TOLD | (told_word)c.sel << 3 * TOLD_BITS | (told_word)c.exec << 2 * TOLD_BITS | (told_word)c.take << TOLD_BITS |
           (told_word)c.key;
}

struct sync_block {
    __device__ __forceinline__ void operator()() const { __syncthreads(); }
};

/* How the blocks of a launch find one another. */
struct blocks_args {
    int *started, *finished; /* counters of blocks, and */
    told_word *told;         /* [blocks]; all zero before and after */
};

/* Sums of what the blocks before `block` told; `key`: from block `run_block` on. One warp. */
__device__ static struct place_counts blocks_before(const struct blocks_args &a, int block, int run_block)
{
    struct place_counts c = {};
    for (int b = threadIdx.x; b < block; b += 32) {
        told_word word;
        while (!(word = *(volatile told_word *)&a.told[b]))
            ;
        c.sel += (int)(word >> 3 * TOLD_BITS & TOLD_MASK);
        c.exec += (int)(word >> 2 * TOLD_BITS & TOLD_MASK);
        c.take += (int)(word >> TOLD_BITS & TOLD_MASK);
        c.key += b >= run_block ? (int)(word & (TOLD - 1)) : 0;
    }
    return {__reduce_add_sync(~0u, c.sel), __reduce_add_sync(~0u, c.exec), __reduce_add_sync(~0u, c.key), __reduce_add_sync(~0u, c.take)};
}

/* The last block to finish leaves zeros for the next launch. */
__device__ static void leave(const struct blocks_args &a)
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
__device__ static void place_block(const struct place_args &a, const struct blocks_args &blocks, int block, int n)
{
    __shared__ struct place_shared<THREADS> s;
    __shared__ struct place_counts before;
    int row0 = block * THREADS, end = n - row0 < THREADS ? n - row0 : THREADS;
    struct place_row f = place_row_at(a, row0 + threadIdx.x, n);
    struct place_counts all, mine = place_count<THREADS>(f, &s, &all, sync_block());
    if (threadIdx.x == end - 1) { /* knows the block's last run */
        int first = f.of.row0 > row0 ? f.of.row0 - row0 : 0;
        struct place_counts tell = all;
        tell.key -= s.keys_before[first];
        *(volatile told_word *)&blocks.told[block] = told_counts(tell);
    }
    if (threadIdx.x < 32) {
        struct place_counts c = blocks_before(blocks, block, __shfl_sync(~0u, f.of.row0, 0) / THREADS);
        if (threadIdx.x == 0)
            before = c;
    }
    __syncthreads();
    place_write<THREADS>(a, row0, n, f, &s, before, mine, all);
}

/* Of gridDim.x blocks, each of which takes the next number. */
__device__ static void place_next_block(const struct place_args &a, const struct blocks_args &blocks)
{
    __shared__ int number;
    if (threadIdx.x == 0)
        number = atomicAdd(blocks.started, 1);
    __syncthreads();
    int n = rows_count(a.all), block = number;
    if (block * THREADS < n)
        place_block(a, blocks, block, n);
    else if (n == 0 && block == 0 && threadIdx.x == 0)
        *a.sel_n = *a.exec_n = a.run_start[a.n_runs] = 0;
    leave(blocks);
}

__global__ void __launch_bounds__(THREADS) place_rows(struct place_args a, struct blocks_args blocks)
{
    chain_enter();
    place_next_block(a, blocks);
}

/* What the blocks of a layer count with, in one array: started, finished, told. */
static __host__ __device__ inline int counters_of(int blocks)
{
    return 2 + blocks * (int)(sizeof(told_word) / sizeof(int));
}
static __host__ __device__ inline struct blocks_args blocks_of(int *counters)
{
    return {counters, counters + 1, (told_word *)(counters + 2)};
}

/* Some layers: blockIdx.y counts them. */
enum { LAYERS_MAX = 256 };
struct place_layers_args {
    struct place_args first; /* what layer 0 has */
    int n_append;
    size_t stride;
    int *counters; /* [layers, counters_of(gridDim.x)]; NULL: one block has all rows */
    unsigned char layers[LAYERS_MAX];
};

__global__ void __launch_bounds__(THREADS) place_layers_rows(const __grid_constant__ struct place_layers_args p)
{
    __shared__ struct place_shared<THREADS> s;
    struct place_args a = p.first;
    int layer = p.layers[blockIdx.y];
    size_t at = layer * p.stride;
    chain_enter();
    a.layer = layer;
    a.base += layer * a.n_runs;
    a.reserved += layer * p.n_append;
    a.sel += at;
    a.sel_n += at;
    a.exec += at;
    a.exec_n += at;
    a.run_start += at;
    a.visible += at;
    a.slot += at;
    if (p.counters)
        place_next_block(a, blocks_of(p.counters + blockIdx.y * counters_of(gridDim.x)));
    else
        place_all<THREADS>(a, rows_count(a.all), &s, sync_block());
}

static int place_layers_cuda(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                             const struct dev_i32 *reserved, int n_append, const struct kern_place *to, size_t stride)
{
    struct cuda_ctx *c = ctx_of(k);
    struct place_layers_args p = {place_args_of(s, 0, base, reserved, to), n_append, stride};
    int blocks = div_up(s->all.n_max, THREADS);
    if (s->all.n_max == 0 || s->all.n_dev || n > LAYERS_MAX)
        return 0;
    for (int i = 0; i < n; i++) {
        if (layers[i] >= LAYERS_MAX)
            return 0;
        p.layers[i] = (unsigned char)layers[i];
    }
    if (blocks > 1 && !(p.counters = cuda_counters(c, (size_t)n * counters_of(blocks))))
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    chain_launch(c, place_layers_rows, dim3(blocks, n), THREADS, 0, p);
    int r = launched(k, "place_layers");
    return r < 0 ? r : 1;
}

static int place_cuda(struct kern_ctx *k, const struct kern_step *s, int layer, const struct dev_u8 *route, bool keep_all,
                      const struct dev_i32 *base, const struct dev_i32 *reserved, const struct kern_place *to)
{
    struct cuda_ctx *c = ctx_of(k);
    int blocks = s->all.n_max > THREADS ? div_up(s->all.n_max, THREADS) : 1;
    int *counters = cuda_counters(c, counters_of(blocks));
    if (!counters)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    struct place_args a = place_args_of(s, layer, base, reserved, to);
    a.route = u8_of(route);
    a.keep_all = keep_all;
    chain_launch(c, place_rows, blocks, THREADS, 0, a, blocks_of(counters));
    return launched(k, "place");
}

/* A warp counts the rows that a run follows in one layer. first, n: [n_runs], and then n_before: [1] */
__global__ void __launch_bounds__(THREADS) follow_runs(int *base, int n_layers, int n_runs, const int *first, const unsigned char *route)
{
    chain_enter();
    const int *n = first + n_runs, *n_before = n + n_runs;
    int at = blockIdx.x * WARPS + threadIdx.x / 32, i = at % n_runs, keys = 0;
    if (at >= n_layers * n_runs || base[at] >= 0)
        return;
    const unsigned char *decided = route + (size_t)(at / n_runs) * *n_before + first[i];
    for (int r = threadIdx.x % 32; r < n[i]; r += 32)
        keys += decided[r] == DECISION_ATTEND;
    keys = __reduce_add_sync(~0u, keys);
    if (threadIdx.x % 32 == 0)
        base[at] = -1 - base[at] + keys;
}

static int follow_cuda(struct kern_ctx *k, struct dev_i32 *base, int n_layers, int n_runs, const struct dev_i32 *after,
                       const struct dev_u8 *route)
{
    int n = n_layers * n_runs;
    if (n == 0)
        return 0;
    chain_launch(ctx_of(k), follow_runs, div_up(n, WARPS), THREADS, 0, i32_of(base), n_layers, n_runs, i32_of(after), u8_of(route));
    return launched(k, "follow");
}

void place_cuda_init(struct kern_ops *o)
{
    o->follow = follow_cuda;
    o->place = place_cuda;
    o->place_layers = place_layers_cuda;
}
