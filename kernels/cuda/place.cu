/* Row lists and key places of one layer, in one block: warps count their rows by ballot, the counts are scanned, the rows are written.
 *
 * Three running counts a row: selected rows, rows with K and V, and rows that take a reserved slot. A run's own counts are
 * differences to the counts at its first row, so those prefixes are kept in scratch memory between the two passes. */
#include "kernels/cuda/common.cuh"

enum { THREADS = 1024, WARPS = THREADS / 32 };

struct counts { int sel, key, take; };

struct place_args {
    struct kern_step s;
    const unsigned char *route;
    bool kv_all;
    const int *base, *reserved;
    struct kern_place out;
    int2 *before;   /* [n] keys and selected rows before row r */
    int *tables;    /* of the layer's offset 0 */
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

/* Sums over the warps before this one; `total` gets the sum over all. */
__device__ static struct counts warps_before(struct counts mine, struct counts *total)
{
    __shared__ struct counts warp[WARPS];
    if (threadIdx.x % 32 == 0)
        warp[threadIdx.x / 32] = mine;
    __syncthreads();
    struct counts before = {0, 0, 0}, all = {0, 0, 0};
    for (int w = 0; w < WARPS; w++) {
        if (w == threadIdx.x / 32)
            before = all;
        all.sel += warp[w].sel;
        all.key += warp[w].key;
        all.take += warp[w].take;
    }
    *total = all;
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

__global__ void __launch_bounds__(THREADS, 1) place_rows(struct place_args a)
{
    int n = rows_count(a.s.all), lane = threadIdx.x % 32, below = (1u << lane) - 1;
    int span = (n + THREADS - 1) / THREADS * 32, first = threadIdx.x / 32 * span;
    struct counts sum = {0, 0, 0}, total;
    for (int r = first; r < first + span; r += 32) {
        struct counts f = row_flags(a, r + lane, n);
        sum.sel += __popc(__ballot_sync(~0u, f.sel));
        sum.key += __popc(__ballot_sync(~0u, f.key));
        sum.take += __popc(__ballot_sync(~0u, f.take));
    }
    struct counts at = warps_before(sum, &total);
    for (int r = first; r < first + span; r += 32) {
        struct counts f = row_flags(a, r + lane, n);
        unsigned sel = __ballot_sync(~0u, f.sel), key = __ballot_sync(~0u, f.key), take = __ballot_sync(~0u, f.take);
        struct counts mine = {at.sel + __popc(sel & below), at.key + __popc(key & below), at.take + __popc(take & below)};
        if (r + lane < n)
            write_row(a, r + lane, f, mine);
        at.sel += __popc(sel);
        at.key += __popc(key);
        at.take += __popc(take);
    }
    if (threadIdx.x == 0) {
        *a.out.sel_n = total.sel;
        *a.out.rest_n = n - total.sel;
        a.out.run_start[a.s.n_runs] = total.sel;
        a.before[n] = make_int2(total.key, total.sel);
    }
}

/* A thread a row: the key's number in its sequence, and its entry in the slot table. */
__global__ static void place_keys(struct place_args a)
{
    int r = blockIdx.x * 256 + threadIdx.x;
    if (r < a.s.n_runs)
        a.out.run_start[r] = a.before[a.s.runs[r].row0].y;
    if (r >= rows_count(a.s.all) || !(!a.route || a.route[r] || a.kv_all))
        return;
    int i = a.s.run_of[r];
    const struct kern_run run = a.s.runs[i];
    int key = a.base[i] + a.before[r].x - a.before[run.row0].x;
    a.out.visible[r] = key + 1;
    if (run.append)
        a.tables[run.table_off + (int64_t)a.layer * run.table_cap + key] = a.out.slot[r];
}

static int place_cuda(struct kern_ctx *k, const struct kern_step *s, int layer, const unsigned char *route, bool kv_all, const int *base,
                      const int *reserved, struct kern_place *ret)
{
    struct cuda_ctx *c = ctx_of(k);
    struct place_args a = {*s, route, kv_all, base, reserved, *ret, NULL, s->tables, layer};
    a.before = (int2 *)cuda_scratch(c, SCRATCH_PLACE, (size_t)(s->all.n_max + 1) * sizeof(int2));
    if (!a.before)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    place_rows<<<1, THREADS, 0, c->stream>>>(a);
    int n = s->all.n_max > s->n_runs ? s->all.n_max : s->n_runs;
    if (n)
        place_keys<<<div_up(n, 256), 256, 0, c->stream>>>(a);
    return launched(k, "place");
}

void place_cuda_init(struct kern_ops *o) { o->place = place_cuda; }
