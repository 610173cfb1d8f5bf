/* Runs that branch from another run of their step: key counts and slot tables. A block a branch, and a layer. */
#include "kernels/cuda/chain.cuh"
#include "kernels/cuda/common.cuh"

enum { THREADS = 256, LAYERS_MAX = 256 };

/* Rows row0 .. row0+n-1 that have keys, told to every thread of the block. route NULL: all. */
__device__ static int count_keys(const unsigned char *route, int row0, int n)
{
    int keys = 0;
    if (!route)
        return n;
    for (int r0 = 0; r0 < n; r0 += THREADS) {
        int r = r0 + threadIdx.x;
        keys += __syncthreads_count(r < n && route[row0 + r] == DECISION_ATTEND);
    }
    return keys;
}

__global__ void __launch_bounds__(THREADS)
    count_branches(const struct kern_branch *branches, const struct kern_run *runs, const unsigned char *route, int *base)
{
    chain_enter();
    struct kern_branch b = branches[blockIdx.x];
    int keys = count_keys(route, runs[b.from].row0, b.n);
    if (threadIdx.x == 0)
        base[b.run] += keys;
}

static int branch_counts_cuda(struct kern_ctx *k, const struct kern_step *s, const struct dev_u8 *route, struct dev_i32 *base)
{
    if (s->n_branches == 0)
        return 0;
    chain_launch(ctx_of(k), count_branches, s->n_branches, THREADS, 0, branches_of(s->branches), runs_of(s->runs), u8_of(route),
                 i32_of(base));
    return launched(k, "branch_counts");
}

struct list_args {
    const struct kern_branch *branches;
    const struct kern_run *runs;
    const unsigned char *route;
    const int *base;
    int n_runs;
    int *tables;
    unsigned short layers[LAYERS_MAX]; /* blockIdx.y counts them */
};

__device__ __forceinline__ int *table_of(const struct list_args &a, const struct kern_run &run, int layer)
{
    return a.tables + run.table_off + (int64_t)layer * run.table_cap;
}

__global__ void __launch_bounds__(THREADS) list_branches(const __grid_constant__ struct list_args a)
{
    int layer = a.layers[blockIdx.y];
    chain_enter();
    struct kern_branch b = a.branches[blockIdx.x];
    int keys = count_keys(a.route, a.runs[b.from].row0, b.n_listed), before = a.base[(size_t)layer * a.n_runs + b.from];
    const int *from = table_of(a, a.runs[b.from], layer) + before;
    int *to = table_of(a, a.runs[b.run], layer) + before;
    for (int i = threadIdx.x; i < keys; i += THREADS)
        to[i] = from[i];
}

static int branch_keys_cuda(struct kern_ctx *k, const struct kern_step *s, const int *layers, int n, const struct dev_u8 *route,
                            const struct dev_i32 *base)
{
    struct list_args a = {branches_of(s->branches), runs_of(s->runs), u8_of(route), i32_of(base), s->n_runs, i32_of(s->tables)};
    int r = 0;
    for (int done = 0, some; done < n && s->n_branches && r >= 0; done += some) {
        some = n - done < LAYERS_MAX ? n - done : LAYERS_MAX;
        for (int i = 0; i < some; i++)
            a.layers[i] = (unsigned short)layers[done + i];
        chain_launch(ctx_of(k), list_branches, dim3(s->n_branches, some), THREADS, 0, a);
        r = launched(k, "branch_keys");
    }
    return r;
}

void branch_cuda_init(struct kern_ops *o)
{
    o->branch_counts = branch_counts_cuda;
    o->branch_keys = branch_keys_cuda;
}
