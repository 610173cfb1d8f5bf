/* Row lists and key places of one layer, in one pass: a block counts its 256 rows, tells its counts, and adds up what the blocks before it told.
 *
 * Four running counts a row: rows that attend, rows that do not skip, rows with K and V, and rows that take a reserved slot. Keys count within a run only: a block tells
 * how many its last run has in it, and a block whose first row lies inside a run adds those up back to the block where the run starts. Blocks are
 * numbered in the order in which they start, so those that a block waits for are running or done. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, WARPS = THREADS / 32 };

/* Of a block's rows; each at most THREADS. */
struct counts {
    int sel, exec, key, take;

    __device__ __forceinline__ struct counts operator+(const struct counts &o) const
    {
        return {sel + o.sel, exec + o.exec, key + o.key, take + o.take};
    }
};

/* What a block tells, in one word: the counts of its rows, but of the keys those of its last run; nonzero once told. */
typedef unsigned long long told_word;
enum { TOLD_BITS = 16, TOLD_MASK = (1 << TOLD_BITS) - 1 };
static constexpr told_word TOLD = 1ull << 15; /* a bit that no count needs */
static_assert(THREADS < 1 << 15, "a count leaves it free");

static __device__ __forceinline__ told_word told_counts(const struct counts &c)
{
    return TOLD | (told_word)c.sel << 3 * TOLD_BITS | (told_word)c.exec << 2 * TOLD_BITS | (told_word)c.take << TOLD_BITS |
           (told_word)c.key;
}

struct place_args {
    struct rows all;
    const int *run_of, *base, *reserved;
    const struct kern_run *runs;
    const unsigned char *route; /* NULL: every row attends */
    bool keep_all;
    int n_runs, layer;
    int *tables, *sel, *sel_n, *exec, *exec_n, *run_start, *visible, *slot;
    const int *pos;                  /* of step rows, as gate_of */
    int *packed_pos, *packed_run_of; /* NULL: rows are not packed */
    const float *gate_of;
    float *packed_gate;      /* NULL: not wanted */
    int *started, *finished; /* counters of blocks, and */
    told_word *told;         /* [blocks]; all zero before and after; NULL: there is one block */
};

struct row_facts {
    int run;
    struct counts is; /* each 0 or 1 */
    struct kern_run of;
};

__device__ __forceinline__ struct row_facts row_flags(const struct place_args &a, int r, int n)
{
    struct row_facts f = {};
    if (r >= n)
        return f;
    int decision = a.route ? a.route[r] : DECISION_ATTEND;
    f.run = a.run_of[r];
    f.of = a.runs[f.run];
    f.is.sel = decision == DECISION_ATTEND;
    f.is.exec = decision != DECISION_SKIP;
    f.is.key = f.is.sel || a.keep_all;
    f.is.take = f.is.key && f.of.append;
    return f;
}

/* Counts of the block's rows before this thread's; `all`: of the whole block. */
__device__ static struct counts rows_before(const struct row_facts &f, struct counts *all)
{
    __shared__ struct counts warp[WARPS];
    unsigned sel = __ballot_sync(~0u, f.is.sel), exec = __ballot_sync(~0u, f.is.exec), key = __ballot_sync(~0u, f.is.key),
             take = __ballot_sync(~0u, f.is.take), below = (1u << threadIdx.x % 32) - 1;
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = {__popc(sel), __popc(exec), __popc(key), __popc(take)};
    __syncthreads();
    struct counts c = {__popc(sel & below), __popc(exec & below), __popc(key & below), __popc(take & below)};
    *all = {};
    for (int w = 0; w < WARPS; w++) {
        if (w < threadIdx.x / 32)
            c = c + warp[w];
        *all = *all + warp[w];
    }
    return c;
}

/* Sums of what the blocks before `block` told; `key`: from block `run_block` on. One warp. */
__device__ static struct counts blocks_before(const struct place_args &a, int block, int run_block)
{
    struct counts c = {};
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

/* at: counts of the rows before r, of the keys those of its run. */
__device__ __forceinline__ void write_row(const struct place_args &a, int r, const struct row_facts &f, struct counts at)
{
    int slot = f.is.take ? a.reserved[at.take] : -1, number = a.packed_pos ? at.exec : r;
    if (r == f.of.row0)
        a.run_start[f.run] = at.sel;
    if (f.is.sel)
        a.sel[at.sel] = number;
    if (f.is.exec)
        a.exec[at.exec] = r;
    else if (a.packed_pos)
        return;
    if (a.packed_pos) {
        a.packed_pos[number] = a.pos[r];
        a.packed_run_of[number] = f.run;
        if (a.packed_gate)
            a.packed_gate[number] = a.gate_of[r];
    }
    a.slot[number] = slot;
    if (!f.is.key)
        return;
    a.visible[number] = a.base[f.run] + at.key + 1;
    if (f.of.append)
        a.tables[f.of.table_off + (int64_t)a.layer * f.of.table_cap + a.base[f.run] + at.key] = slot;
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
    if (a.told && threadIdx.x == end - 1) { /* knows the block's last run */
        int first = f.of.row0 > row0 ? f.of.row0 - row0 : 0;
        struct counts tell = all;
        tell.key -= keys_before[first];
        *(volatile told_word *)&a.told[block] = told_counts(tell);
    }
    if (threadIdx.x < 32) {
        struct counts c = blocks_before(a, block, __shfl_sync(~0u, f.of.row0, 0) / THREADS);
        if (threadIdx.x == 0)
            before = c;
    }
    __syncthreads();
    struct counts at = before + mine;
    at.key = mine.key + (f.of.row0 < row0 ? before.key : -keys_before[f.of.row0 - row0]);
    if (r < n)
        write_row(a, r, f, at);
    if (r == n - 1) {
        *a.sel_n = a.run_start[a.n_runs] = before.sel + all.sel;
        *a.exec_n = before.exec + all.exec;
    }
}

__global__ void __launch_bounds__(THREADS) place_rows(struct place_args a)
{
    __shared__ int number;
    chain_enter();
    if (threadIdx.x == 0)
        number = atomicAdd(a.started, 1);
    __syncthreads();
    int n = rows_count(a.all), block = number;
    if (block * THREADS < n)
        place_block(a, block, n);
    else if (n == 0 && block == 0 && threadIdx.x == 0)
        *a.sel_n = *a.exec_n = a.run_start[a.n_runs] = 0;
    leave(a);
}

/* Some layers of few rows, a block each. */
enum { LAYERS_MAX = 256 };
struct place_layers_args {
    struct place_args first; /* what layer 0 has */
    int n_append, stride;
    unsigned char layers[LAYERS_MAX];
};
static_assert(KERN_PLACE_ROWS <= THREADS, "a block has all rows");

__global__ void __launch_bounds__(THREADS) place_layers_rows(const __grid_constant__ struct place_layers_args p)
{
    struct place_args a = p.first;
    int layer = p.layers[blockIdx.x], at = layer * p.stride;
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
    place_block(a, 0, rows_count(a.all));
}

static struct place_args args_of(const struct kern_step *s, const struct dev_i32 *base, const struct dev_i32 *reserved,
                                 const struct kern_place *to)
{
    return {.all = s->all,
            .run_of = i32_of(s->run_of),
            .base = i32_of(base),
            .reserved = i32_of(reserved),
            .runs = runs_of(s->runs),
            .n_runs = s->n_runs,
            .tables = i32_of(s->tables),
            .sel = i32_of(to->sel),
            .sel_n = i32_of(to->sel_n),
            .exec = i32_of(to->exec),
            .exec_n = i32_of(to->exec_n),
            .run_start = i32_of(to->run_start),
            .visible = i32_of(to->visible),
            .slot = i32_of(to->slot),
            .pos = i32_of(s->pos),
            .packed_pos = i32_of(to->packed.pos),
            .packed_run_of = i32_of(to->packed.run_of),
            .gate_of = f32_of(to->packed.gate_of),
            .packed_gate = f32_of(to->packed.gate)};
}

static int place_layers_cuda(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_i32 *base,
                             const struct dev_i32 *reserved, int n_append, const struct kern_place *to, int stride)
{
    struct place_layers_args p = {args_of(s, base, reserved, to), n_append, stride};
    if (s->all.n_max > KERN_PLACE_ROWS || s->all.n_max == 0 || s->all.n_dev || n > LAYERS_MAX)
        return 0;
    for (int i = 0; i < n; i++) {
        if (layers[i] >= LAYERS_MAX)
            return 0;
        p.layers[i] = (unsigned char)layers[i];
    }
    chain_launch(ctx_of(k), place_layers_rows, n, THREADS, 0, p);
    int r = launched(k, "place_layers");
    return r < 0 ? r : 1;
}

static int place_cuda(struct kern_ctx *k, const struct kern_step *s, int layer, const struct dev_u8 *route, bool keep_all,
                      const struct dev_i32 *base, const struct dev_i32 *reserved, const struct kern_place *to)
{
    struct cuda_ctx *c = ctx_of(k);
    int blocks = s->all.n_max > THREADS ? div_up(s->all.n_max, THREADS) : 1;
    int *counters = cuda_counters(c, 2 + (size_t)blocks * (sizeof(told_word) / sizeof(int)));
    if (!counters)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    struct place_args a = args_of(s, base, reserved, to);
    a.route = u8_of(route);
    a.keep_all = keep_all;
    a.layer = layer;
    a.started = counters;
    a.finished = counters + 1;
    a.told = (told_word *)(counters + 2);
    chain_launch(c, place_rows, blocks, THREADS, 0, a);
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
