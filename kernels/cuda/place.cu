/* Row lists and key places of one layer, in one cluster of blocks (one block before Hopper): warps count their rows by ballot, the counts are
 * scanned over warps and blocks, the rows are written.
 *
 * Three running counts a row: selected rows, rows with K and V, and rows that take a reserved slot. A run's own counts are
 * differences to the counts at its first row, so those prefixes are kept in scratch memory between the passes. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 1024, WARPS = THREADS / 32, MAX_BLOCKS = 8 };

struct counts { int sel, key, take; };

struct place_args {
    struct kern_step s;
    const unsigned char *route;
    bool kv_all;
    const int *base, *reserved;
    struct kern_place out;
    struct counts *of_block;   /* [MAX_BLOCKS] */
    int2 *before;              /* [n+1] keys and selected rows before row r */
    int layer;
};

__device__ __forceinline__ struct counts row_flags(const struct place_args &a, int r, int n)
{
    struct counts c = {0, 0, 0};
    if (r >= n)
        return c;
    c.sel = !a.route || a.route[r];
    c.key = c.sel || a.kv_all;
    c.take = c.key && a.s.runs[a.s.run_of[r]].append;
    return c;
}

__device__ __forceinline__ void add(struct counts *a, struct counts b)
{
    a->sel += b.sel;
    a->key += b.key;
    a->take += b.take;
}

/* All blocks of the grid, which is one cluster; what they wrote is visible afterwards. */
__device__ __forceinline__ void grid_sync()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
    __syncthreads();
#endif
}

/* Sums over the warps and blocks before this one; `total` gets the sum over all. */
__device__ static struct counts warps_before(const struct place_args &a, struct counts mine, struct counts *total)
{
    __shared__ struct counts warp[WARPS];
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = mine;
    __syncthreads();
    struct counts before = {0, 0, 0}, all = {0, 0, 0};
    for (int w = 0; w < WARPS; w++) {
        if (w == threadIdx.x / 32)
            before = all;
        add(&all, warp[w]);
    }
    if (threadIdx.x == 0)
        a.of_block[blockIdx.x] = all;
    grid_sync();
    *total = {0, 0, 0};
    for (int b = 0; b < gridDim.x; b++) {
        struct counts c = a.of_block[b];
        if (b < blockIdx.x)
            add(&before, c);
        add(total, c);
    }
    return before;
}

__device__ __forceinline__ void write_row(const struct place_args &a, int r, struct counts f, struct counts at)
{
    if (f.sel)
        a.out.sel[at.sel] = r;
    else
        a.out.rest[r - at.sel] = r;
    a.before[r] = make_int2(at.key, at.sel);
    a.out.slot[r] = f.take ? a.reserved[at.take] : -1;
}

/* Row r's key number in its sequence, and its entry in the slot table. */
__device__ __forceinline__ void write_key(const struct place_args &a, int r)
{
    int i = a.s.run_of[r];
    const struct kern_run run = a.s.runs[i];
    int key = a.base[i] + a.before[r].x - a.before[run.row0].x;
    a.out.visible[r] = key + 1;
    if (run.append)
        a.s.tables[run.table_off + (int64_t)a.layer * run.table_cap + key] = a.out.slot[r];
}

__global__ void __launch_bounds__(THREADS, 1) place_rows(struct place_args a)
{
    int n = rows_count(a.s.all), lane = threadIdx.x % 32, below = (1u << lane) - 1, all_threads = THREADS * gridDim.x;
    int span = (n + all_threads - 1) / all_threads * 32, first = (blockIdx.x * WARPS + threadIdx.x / 32) * span;
    struct counts sum = {0, 0, 0}, total;
    for (int r = first; r < first + span; r += 32) {
        struct counts f = row_flags(a, r + lane, n);
        sum.sel += __popc(__ballot_sync(~0u, f.sel));
        sum.key += __popc(__ballot_sync(~0u, f.key));
        sum.take += __popc(__ballot_sync(~0u, f.take));
    }
    struct counts at = warps_before(a, sum, &total);
    for (int r = first; r < first + span; r += 32) {
        struct counts f = row_flags(a, r + lane, n);
        unsigned sel = __ballot_sync(~0u, f.sel), key = __ballot_sync(~0u, f.key), take = __ballot_sync(~0u, f.take);
        struct counts mine = {at.sel + __popc(sel & below), at.key + __popc(key & below), at.take + __popc(take & below)};
        if (r + lane < n)
            write_row(a, r + lane, f, mine);
        add(&at, {__popc(sel), __popc(key), __popc(take)});
    }
    if (threadIdx.x == 0 && blockIdx.x == 0) {
        *a.out.sel_n = total.sel;
        *a.out.rest_n = n - total.sel;
        a.out.run_start[a.s.n_runs] = total.sel;
        a.before[n] = make_int2(total.key, total.sel);
    }
    grid_sync();
    for (int r = blockIdx.x * THREADS + threadIdx.x; r < n; r += all_threads)
        if (!a.route || a.route[r] || a.kv_all)
            write_key(a, r);
    for (int i = blockIdx.x * THREADS + threadIdx.x; i < a.s.n_runs; i += all_threads)
        a.out.run_start[i] = a.before[a.s.runs[i].row0].y;
}

static int launch(struct cuda_ctx *c, const struct place_args *a)
{
    int blocks = div_up(a->s.all.n_max, THREADS);
    blocks = c->level < CUDA_WGMMA || blocks <= 1 ? 1 : blocks < 4 ? 2 : MAX_BLOCKS;
    cudaLaunchAttribute cluster = {.id = cudaLaunchAttributeClusterDimension};
    cluster.val.clusterDim = {(unsigned)blocks, 1, 1};
    cudaLaunchConfig_t config = {.gridDim = dim3(blocks), .blockDim = dim3(THREADS), .stream = c->stream, .attrs = &cluster,
                                 .numAttrs = c->level < CUDA_WGMMA ? 0u : 1u};
    return CU(c, cudaLaunchKernelEx(&config, place_rows, *a));
}

static int place_cuda(struct kern_ctx *k, const struct kern_step *s, int layer, const unsigned char *route, bool kv_all, const int *base,
                      const int *reserved, struct kern_place *ret)
{
    struct cuda_ctx *c = ctx_of(k);
    char *scratch = (char *)cuda_scratch(c, SCRATCH_PLACE, MAX_BLOCKS * sizeof(struct counts) + (size_t)(s->all.n_max + 1) * sizeof(int2));
    if (!scratch)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    struct place_args a = {*s, route, kv_all, base, reserved, *ret, (struct counts *)scratch,
                           (int2 *)(scratch + MAX_BLOCKS * sizeof(struct counts)), layer};
    int r = launch(c, &a);
    return r < 0 ? r : launched(k, "place");
}

void place_cuda_init(struct kern_ops *o) { o->place = place_cuda; }
