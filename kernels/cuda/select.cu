/* Expert choice, a block a run; and the list of executed rows.
 *
 * select_top fixes the smallest margin that is taken byte by byte, from the highest, by counting in shared memory (as kernels/cpu/select.c
 * does); then rows are taken in order, 1024 at a time, so that of equal margins the earlier rows come first. */
#include "kernels/cuda/route.cuh"
#include "kernels/expert_count.h"

enum { THREADS = 1024, WARPS = THREADS / 32 };

struct select_args {
    struct decisions to;
    const float *margin;
    const struct kern_run *runs;
    int least;
    double capacity;
};

/* How many of the block's threads before this one have `flag` set; *all: of the block. Every thread takes part. */
__device__ static int flags_before(bool flag, int *all)
{
    __shared__ int warp[WARPS];
    unsigned set = __ballot_sync(~0u, flag), below = (1u << threadIdx.x % 32) - 1;
    __syncthreads(); /* the counts of the call before have been read */
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = __popc(set);
    __syncthreads();
    int before = __popc(set & below);
    *all = 0;
    for (int w = 0; w < WARPS; w++) {
        before += w < threadIdx.x / 32 ? warp[w] : 0;
        *all += warp[w];
    }
    return before;
}

__device__ static int count_eligible(const struct select_args &a, const struct kern_run &run)
{
    int n = 0, all;
    for (int i = 0; i < run.n; i += THREADS) {
        int at = i + threadIdx.x;
        flags_before(at < run.n && a.to.route[run.row0 + at] >= a.least, &all);
        n += all;
    }
    return n;
}

/* What is still to be taken once the bits of `mask` are those of `prefix`. */
struct radix {
    uint32_t prefix, mask;
    int left;
};

/* Warp 0: the highest byte b with at least `left` rows whose byte is b or more; *ret_left: how many of byte b are taken. */
__device__ static int find_byte(const int *count, int left, int *ret_left)
{
    int lane = threadIdx.x, mine = 0; /* a lane has 8 bytes, lane 0 the highest */
    for (int i = 0; i < 8; i++)
        mine += count[255 - lane * 8 - i];
    int upto = mine;
    for (int d = 1; d < 32; d <<= 1) {
        int v = __shfl_up_sync(~0u, upto, d);
        upto += lane >= d ? v : 0;
    }
    int first = __ffs(__ballot_sync(~0u, upto >= left)) - 1, rest = left - (upto - mine), byte = 255 - lane * 8;
    for (int i = 0; i < 7 && count[byte] < rest; i++)
        rest -= count[byte--];
    *ret_left = __shfl_sync(~0u, rest, first);
    return __shfl_sync(~0u, byte, first);
}

__device__ static void fix_byte(const struct select_args &a, const struct kern_run &run, int shift, struct radix *x)
{
    __shared__ int count[256], byte, left;
    __syncthreads();
    if (threadIdx.x < 256)
        count[threadIdx.x] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < run.n; i += THREADS) {
        uint32_t key = margin_key(a.margin[run.row0 + i]);
        if (a.to.route[run.row0 + i] >= a.least && (key & x->mask) == x->prefix)
            atomicAdd(&count[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int rest, b = find_byte(count, x->left, &rest);
        if (threadIdx.x == 0) {
            byte = b;
            left = rest;
        }
    }
    __syncthreads();
    x->prefix |= (uint32_t)byte << shift;
    x->mask |= 255u << shift;
    x->left = left;
}

__global__ static void __launch_bounds__(THREADS) select_runs(struct select_args a)
{
    struct kern_run run = a.runs[blockIdx.x];
    if (!run.select)
        return;
    int eligible = count_eligible(a, run), ties = 0, all;
    struct radix x = {0, 0, expert_count(a.capacity, eligible)};
    if (!eligible)
        return;
    for (int shift = 24; shift >= 0; shift -= 8)
        fix_byte(a, run, shift, &x);
    for (int i = 0; i < run.n; i += THREADS, ties += all) {
        int at = i + threadIdx.x, r = run.row0 + at;
        bool mine = at < run.n && a.to.route[r] >= a.least;
        float margin = mine ? a.margin[r] : 0;
        uint32_t key = margin_key(margin);
        bool tie = mine && key == x.prefix;
        int rank = ties + flags_before(tie, &all);
        bool above = key > x.prefix || (tie && rank < x.left);
        if (!mine)
            continue;
        a.to.route[r] = above ? a.to.above : a.to.below;
        if (a.to.gate)
            a.to.gate[r] = portable_sigmoid(above ? margin : -margin);
    }
}

static int select_top_cuda(struct kern_ctx *k, const struct route_out *to, const struct dev_f32 *margin, int least, double capacity,
                           const struct kern_step *s)
{
    if (s->n_runs == 0)
        return 0;
    struct select_args a = {decisions_of(to), f32_of(margin), runs_of(s->runs), least, capacity};
    select_runs<<<s->n_runs, THREADS, 0, ctx_of(k)->stream>>>(a);
    return launched(k, "select_top");
}

/* A block lists 1024 rows; it counts those before them by itself, as they are few bytes. */
__global__ static void __launch_bounds__(THREADS)
    list_block(int *idx, int *n_dev, const unsigned char *route, int least, struct rows all_rows)
{
    int n = rows_count(all_rows), row0 = blockIdx.x * THREADS, r = row0 + threadIdx.x, before = 0, all;
    if (row0 >= n && blockIdx.x > 0)
        return;
    for (int i = threadIdx.x; i < row0; i += THREADS)
        before += route[i] >= least;
    __shared__ int warp[WARPS];
    before = __reduce_add_sync(~0u, before);
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = before;
    __syncthreads();
    before = 0;
    for (int w = 0; w < WARPS; w++)
        before += warp[w];
    bool mine = r < n && route[r] >= least;
    int at = before + flags_before(mine, &all);
    if (mine)
        idx[at] = r;
    if (threadIdx.x == 0 && row0 + THREADS >= n)
        *n_dev = before + all;
}

static int list_rows_cuda(struct kern_ctx *k, struct dev_i32 *idx, struct dev_i32 *n_dev, const struct dev_u8 *route, int least,
                          struct rows all)
{
    int blocks = all.n_max > THREADS ? div_up(all.n_max, THREADS) : 1;
    list_block<<<blocks, THREADS, 0, ctx_of(k)->stream>>>(i32_of(idx), i32_of(n_dev), u8_of(route), least, all);
    return launched(k, "list_rows");
}

void select_cuda_init(struct kern_ops *o)
{
    o->select_top = select_top_cuda;
    o->list_rows = list_rows_cuda;
}
