/* How a block of threads, one a row, turns decisions into row lists and key places: what place.cu does with each block of rows, and a router with all rows of a
 * step of few (matmul_accurate_few_sm90.cu).
 *
 * Four running counts a row: rows that attend, rows that do not skip, rows with K and V, and rows that take a reserved slot. Keys count within a run only. */
#pragma once
#include "kernels/cuda/common.cuh"

/* Of a block's rows; each at most their number. */
struct place_counts {
    int sel, exec, key, take;

    __device__ __forceinline__ struct place_counts operator+(const struct place_counts &o) const
    {
        return {sel + o.sel, exec + o.exec, key + o.key, take + o.take};
    }
};

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
    float *packed_gate; /* NULL: not wanted */
};

struct place_row {
    int run;
    struct place_counts is; /* each 0 or 1 */
    struct kern_run of;
};

__device__ __forceinline__ struct place_row place_row_at(const struct place_args &a, int r, int n)
{
    struct place_row f = {};
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

/* THREADS threads share it. */
template <int THREADS> struct place_shared {
    struct place_counts warp[THREADS / 32];
    int keys_before[THREADS]; /* of the block's rows, before each */
};

/* Counts of the block's rows before this thread's; `all`: of the whole block. sync: a barrier of its threads. */
template <int THREADS, typename F>
__device__ __forceinline__ struct place_counts place_count(const struct place_row &f, struct place_shared<THREADS> *s,
                                                           struct place_counts *all, F sync)
{
    unsigned sel = __ballot_sync(~0u, f.is.sel), exec = __ballot_sync(~0u, f.is.exec), key = __ballot_sync(~0u, f.is.key),
             take = __ballot_sync(~0u, f.is.take), below = (1u << threadIdx.x % 32) - 1;
    if (threadIdx.x % 32 == 0)
        s->warp[threadIdx.x / 32] = {__popc(sel), __popc(exec), __popc(key), __popc(take)};
    sync();
    struct place_counts c = {__popc(sel & below), __popc(exec & below), __popc(key & below), __popc(take & below)};
    *all = {};
    for (int w = 0; w < THREADS / 32; w++) {
        if (w < threadIdx.x / 32)
            c = c + s->warp[w];
        *all = *all + s->warp[w];
    }
    s->keys_before[threadIdx.x] = c.key;
    sync();
    return c;
}

/* at: counts of the rows before r, of the keys those of its run. */
__device__ __forceinline__ void place_write_row(const struct place_args &a, int r, const struct place_row &f, struct place_counts at)
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

/* Row row0 + threadIdx.x of n. before: counts of the rows before row0, of the keys those of the run that row0 lies in; mine, all: as place_count has told them. */
template <int THREADS>
__device__ __forceinline__ void place_write(const struct place_args &a, int row0, int n, const struct place_row &f,
                                            const struct place_shared<THREADS> *s, struct place_counts before, struct place_counts mine,
                                            struct place_counts all)
{
    int r = row0 + threadIdx.x;
    struct place_counts at = before + mine;
    at.key = mine.key + (f.of.row0 < row0 ? before.key : -s->keys_before[f.of.row0 - row0]);
    if (r < n)
        place_write_row(a, r, f, at);
    if (r == n - 1) {
        *a.sel_n = a.run_start[a.n_runs] = before.sel + all.sel;
        *a.exec_n = before.exec + all.exec;
    }
}

/* All n rows, 1 <= n <= THREADS. */
template <int THREADS, typename F>
__device__ __forceinline__ void place_all(const struct place_args &a, int n, struct place_shared<THREADS> *s, F sync)
{
    struct place_row f = place_row_at(a, threadIdx.x, n);
    struct place_counts all, mine = place_count<THREADS>(f, s, &all, sync);
    place_write<THREADS>(a, 0, n, f, s, {}, mine, all);
}

/* Without decisions. */
static inline struct place_args place_args_of(const struct kern_step *s, int layer, const struct dev_i32 *base,
                                              const struct dev_i32 *reserved, const struct kern_place *to)
{
    return {.all = s->all,
            .run_of = i32_of(s->run_of),
            .base = i32_of(base),
            .reserved = i32_of(reserved),
            .runs = runs_of(s->runs),
            .n_runs = s->n_runs,
            .layer = layer,
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
