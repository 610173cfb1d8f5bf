/* The attention slot, the list of query tiles, and the plain kernel: one warp a row and query head, any type, f32 arithmetic. */
#include "kernels/cuda/attention.cuh"
#include <limits.h>
#include <math_constants.h>

/* ---- tiles ---- */

enum { TILE_THREADS = 1024, LAST_WAVES = 4, LAST_RUNS = 16 }; /* LAST_RUNS: most that are taken by size */

/* Inclusive sum over the block; `total` gets the sum of all. */
__device__ static int block_scan(int v, int *total)
{
    __shared__ int warp_total[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, before = 0;
    for (int d = 1; d < 32; d <<= 1) {
        int o = __shfl_up_sync(~0u, v, d);
        v += lane >= d ? o : 0;
    }
    __syncthreads();
    if (lane == 31)
        warp_total[warp] = v;
    __syncthreads();
    *total = 0;
    for (int w = 0; w < 32; w++) {
        before += w < warp ? warp_total[w] : 0;
        *total += warp_total[w];
    }
    return before + v;
}

/* Number u of the tiles of n runs of so many each, by size, the largest first: its run and its number in it. */
__device__ static int2 tile_by_size(const int *tiles, int n, int u)
{
    int most = 0, least = INT_MAX, run = -1;
    for (int i = 0; i < n; i++) {
        most = max(most, tiles[i]);
        least = min(least, tiles[i]);
    }
    if (least == most)
        return make_int2(u % n, most - 1 - u / n);
    for (;; most--) {
        int have = 0;
        for (int i = 0; i < n; i++)
            have += tiles[i] >= most;
        if (u < have)
            break;
        u -= have;
    }
    while (u >= 0)
        u -= tiles[++run] >= most;
    return make_int2(run, most - 1);
}

/* Tile number t of all; first_tile[i] is run i's first. The runs from by_size on have last_tiles each, which are taken by size. */
__device__ static struct attention_tile make_tile(const struct attention_args &a, const int *first_tile, int t, int tile_rows, int by_size,
                                                  const int *last_tiles)
{
    int lo = 0, hi = a.n_runs - 1, group = a.h / a.hk;
    while (lo < hi) { /* the last run that starts at or before t: runs without tiles come before it */
        int mid = (lo + hi + 1) / 2;
        if (first_tile[mid] <= t)
            lo = mid;
        else
            hi = mid - 1;
    }
    int2 at = {lo, first_tile[lo + 1] - 1 - t};
    if (lo >= by_size) {
        at = tile_by_size(last_tiles, a.n_runs - by_size, t - first_tile[by_size]);
        at.x += by_size;
    }
    const struct kern_run run = a.runs[at.x];
    int start = a.run_start[at.x], all = (a.run_start[at.x + 1] - start) * group;
    int first = at.y * tile_rows, rows = all - first < tile_rows ? all - first : tile_rows;
    int from = first / group, to = (first + rows - 1) / group, row = a.sel[start + from], last = a.sel[start + to];
    return {start, first, rows, a.visible[last], run.table_cap, last - row == to - from ? row : -1, run.table_off};
}

__global__ static void __launch_bounds__(TILE_THREADS)
    list_tiles(struct attention_args a, int tile_rows, int by_size, struct attention_tiles out, int *first_tile)
{
    __shared__ int last_tiles[LAST_RUNS];
    chain_enter();
    int n_tiles = 0, total, group = a.h / a.hk;
    for (int i0 = 0; i0 < a.n_runs; i0 += TILE_THREADS) {
        int i = i0 + threadIdx.x, rows = i < a.n_runs ? (a.run_start[i + 1] - a.run_start[i]) * group : 0,
            n = (rows + tile_rows - 1) / tile_rows;
        int end = block_scan(n, &total);
        if (i < a.n_runs)
            first_tile[i] = n_tiles + end - n;
        if (i >= by_size && i < a.n_runs)
            last_tiles[i - by_size] = n;
        n_tiles += total;
    }
    if (threadIdx.x == 0)
        first_tile[a.n_runs] = n_tiles;
    __syncthreads();
    for (int t = threadIdx.x; t < n_tiles; t += TILE_THREADS)
        out.tile[t] = make_tile(a, first_tile, t, tile_rows, by_size, last_tiles);
    if (threadIdx.x == 0) {
        *out.count = n_tiles;
        *out.taken = 0;
        *out.ended = 0;
    }
}

int attention_list_tiles(struct cuda_ctx *c, const struct attention_args *a, int tile_rows, struct attention_tiles *ret)
{
    size_t most = (size_t)a->n_max * (a->h / a->hk) / tile_rows + a->n_runs + 1;
    char *p = (char *)cuda_scratch(c, SCRATCH_TILES, 16 + most * sizeof(struct attention_tile) + (a->n_runs + 1) * sizeof(int));
    if (!p)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    ret->count = (int *)p;
    ret->taken = (int *)p + 1;
    ret->ended = (unsigned *)p + 2;
    ret->tile = (struct attention_tile *)(p + 16);
    if (a->again) /* of the same size, so the list has not moved */
        return 0;
    /* The last runs, about LAST_WAVES pieces a multiprocessor: with small tiles at the end all multiprocessors finish at about the same time. */
    size_t pieces = (size_t)a->n_max * (a->h / a->hk) / tile_rows * a->hk + 1, wanted = (size_t)LAST_WAVES * c->n_sm;
    size_t some = (wanted * a->n_runs + pieces - 1) / pieces;
    int last = some < LAST_RUNS ? (int)some : LAST_RUNS, by_size = last < a->n_runs ? a->n_runs - last : 0;
    chain_launch(c, list_tiles, 1, TILE_THREADS, 0, *a, tile_rows, by_size, *ret, (int *)(ret->tile + most));
    return launched(&c->k, "attention_tiles");
}

/* ---- the plain kernel ---- */

enum { WARPS = 4, MAX_HD = 256 };

/* Blocks of 32 keys: a lane scores one key, then owns columns lane, lane + 32, .. of the result. */
template <typename T> __global__ void __launch_bounds__(WARPS * 32) attention_row(struct attention_args a)
{
    __shared__ float q_of[WARPS][MAX_HD];
    int w = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y * WARPS + w;
    if (blockIdx.x >= *a.sel_n || head >= a.h)
        return;
    int r = a.sel[blockIdx.x], n = a.visible[r], hd = a.hd, kv_head = head / (a.h / a.hk);
    const struct kern_run run = a.runs[a.run_of[r]];
    const int *slots = a.tables + run.table_off + (int64_t)a.layer * run.table_cap;
    const T *q = (const T *)a.qkv + ((size_t)r * (a.h + 2 * a.hk) + head) * hd, *kv = (const T *)a.kv + (size_t)kv_head * hd;
    size_t slot_ld = (size_t)2 * a.hk * hd;
    float *qs = q_of[w], acc[MAX_HD / 32] = {}, max = -CUDART_INF_F, sum = 0;
    for (int i = lane; i < hd; i += 32)
        qs[i] = to_f32(q[i]);
    __syncwarp();
    for (int j0 = 0; j0 < n; j0 += 32) {
        int slot = j0 + lane < n ? slots[j0 + lane] : 0;
        float s = 0;
        const T *key = kv + slot * slot_ld;
        for (int i = 0; i < hd; i += 4) {
            float kk[4];
            load4(kk, key + i);
            for (int t = 0; t < 4; t++)
                s = fmaf(qs[i + t], kk[t], s);
        }
        s = j0 + lane < n ? s * a.scale : -CUDART_INF_F;
        float new_max = fmaxf(max, warp_max(s)), keep = expf(max - new_max), p = expf(s - new_max);
        sum = sum * keep + warp_sum(p);
        max = new_max;
#pragma unroll
        for (int c = 0; c < MAX_HD / 32; c++)
            acc[c] *= keep;
        for (int j = 0; j < 32 && j0 + j < n; j++) {
            const T *v = kv + __shfl_sync(~0u, slot, j) * slot_ld + (size_t)a.hk * hd;
            float pj = __shfl_sync(~0u, p, j);
#pragma unroll
            for (int c = 0; c < MAX_HD / 32; c++)
                if (c * 32 + lane < hd)
                    acc[c] = fmaf(pj, to_f32(v[c * 32 + lane]), acc[c]);
        }
    }
    T *out = (T *)a.out + ((size_t)r * a.h + head) * hd;
#pragma unroll
    for (int c = 0; c < MAX_HD / 32; c++)
        if (c * 32 + lane < hd)
            out[c * 32 + lane] = from_f32<T>(acc[c] / sum);
}

int attention_simt(struct cuda_ctx *c, const struct attention_args *a)
{
    dim3 grid(a->n_max, div_up(a->h, WARPS));
    if (c->k.act == DTYPE_BF16)
        attention_row<__nv_bfloat16><<<grid, WARPS * 32, 0, c->stream>>>(*a);
    else
        attention_row<__half><<<grid, WARPS * 32, 0, c->stream>>>(*a);
    return launched(&c->k, "attention_simt");
}

struct attention_args attention_args_of(const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                                        const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    return {.qkv = act_of(qkv),
            .kv = act_of(hs->kv),
            .out = act_of(out),
            .runs = runs_of(s->runs),
            .tables = i32_of(s->tables),
            .sel = i32_of(p->sel),
            .sel_n = i32_of(p->sel_n),
            .run_start = i32_of(p->run_start),
            .visible = i32_of(p->visible),
            .run_of = i32_of(s->run_of),
            .layer = layer,
            .h = hs->h,
            .hk = hs->hk,
            .hd = hs->hd,
            .n_runs = s->n_runs,
            .n_max = s->all.n_max,
            .scale = scale,
            .packed = s->all.n_dev != NULL,
            .again = p->again};
}

static int attention_cuda(struct kern_ctx *k, const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                          const struct kern_step *s, int layer, const struct kern_place *p, float scale)
{
    struct cuda_ctx *c = ctx_of(k);
    if (s->all.n_max == 0)
        return 0;
    struct attention_args a = attention_args_of(hs, out, qkv, s, layer, p, scale);
    if (c->high && a.hd <= HIGH_HEAD)
        return attention_high(c, &a);
    if (k->act == DTYPE_F32)
        return attention_f32(c, &a);
    if (c->level == CUDA_SIMT)
        return attention_simt(c, &a);
    return c->level == CUDA_MMA ? attention_mma(c, &a) : attention_sm90(c, &a);
}

void attention_cuda_init(struct kern_ops *o)
{
    o->attention = attention_cuda;
}
