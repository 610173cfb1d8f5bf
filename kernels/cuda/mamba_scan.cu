/* The Mamba router's recurrence: S = 2^(D rate) S + D c B and y = sum_i S C, row by row.
 *
 * A block takes CH channels of one run. LANES lanes hold the states of a channel, PER each. Rows are counted from the run's first group of four (mamba.cuh,
 * struct mamba_rows), so that four rows of a lane are one load from shared memory, which gets them in tiles: the next ones while one is worked on.
 * The recurrence goes LANES rows at a time, so that the sums over a channel's states are taken together: in each of log2(LANES) exchanges a lane passes on
 * half of the rows that it still has and keeps the other half, and ends with the sum of one row. Each sum is the same tree over the lanes.
 *
 * There are few warps, and what counts is how many instructions a row takes, and that they need not wait for each other. So a tile is one piece of code
 * without a branch (scan_tile), but where the run begins or ends in it or states are saved: that goes row by row (scan_careful). */
#include "kernels/cuda/mamba.cuh"
#include "kernels/cuda/mma.cuh"
#include <limits.h>

enum { THREADS = SCAN_THREADS, SHARED_UNASKED = 48 << 10 };

template <int LANES, int PER> struct scan_shape {
    enum {
        CH = THREADS / LANES,
        TILE = PER == 1 ? 64 : 32, /* rows */
        BATCHES = TILE / LANES,
        BC = TILE * 2 * LANES * PER, /* floats of a stage: of (B, C), */
        DELTA = TILE * 2 * CH,       /* and of (D, D c) */
        STAGE = BC + DELTA,
        STAGES = 4 * STAGE * 4 <= SHARED_UNASKED ? 4 : 3,
        BYTES = STAGES * STAGE * 4
    };
    static_assert(TILE <= SCAN_BEYOND);
};

struct scan_args {
    struct mamba_weights w;
    struct mamba_step s;
    struct mamba_rows b;
};

/* A run as the scan counts its rows: from row0, a multiple of 4; those from begin to end are of the run. */
struct scan_rows {
    int row0, begin, end;
};

/* A stage of shared memory, and where a tile's rows lie: N floats in one piece. */
template <int N> __device__ __forceinline__ void copy_piece(uint32_t to, const float *from)
{
#pragma unroll
    for (int i = 0; i < N / 4; i += THREADS)
        if (i + THREADS <= N / 4 || i + threadIdx.x < N / 4)
            copy16(to + (i + threadIdx.x) * 16, from + (i + threadIdx.x) * 4, true);
}

/* Starts the copies of the next tile, if there is one, into the next stage. */
template <int LANES, int PER> struct tile_feed {
    typedef scan_shape<LANES, PER> shape;
    const float *bc, *delta;
    uint32_t first;
    int stage = 0, left; /* tiles */

    __device__ __forceinline__ tile_feed(const struct scan_args &a, const struct scan_rows &rows, const float *smem, int e0, int tiles)
        : bc(a.b.bc + (size_t)rows.row0 * 2 * LANES * PER), delta(a.b.delta_at(rows.row0 / 4, e0)), first(smem_address(smem)), left(tiles)
    {
    }
    __device__ __forceinline__ void next()
    {
        if (left > 0) {
            copy_piece<shape::BC>(first + stage * shape::STAGE * 4, bc);
            copy_piece<shape::DELTA>(first + (stage * shape::STAGE + shape::BC) * 4, delta);
        }
        copy_commit();
        left--;
        bc += shape::BC;
        delta += shape::DELTA;
        stage = stage + 1 < shape::STAGES ? stage + 1 : 0;
    }
};

/* What a lane of a channel has: states i * LANES + its place among the lanes. */
template <int PER> struct lane_states {
    float s[PER], rate[PER];
};

/* Stores the lane's states to slot `slot`. */
template <int LANES, int PER>
__device__ __forceinline__ void store_states(const struct scan_args &a, const struct lane_states<PER> &l, int slot, int e)
{
    if (slot < 0 || e >= a.w.e)
        return;
    float *to = a.s.state(slot) + (size_t)(a.w.n_conv - 1) * a.w.e + (size_t)e * a.w.n_state;
    for (int i = 0; i < PER; i++) {
        int n = i * LANES + threadIdx.x % LANES;
        if (n < a.w.n_state)
            to[n] = l.s[i];
    }
}

/* Sums over 2 HALF neighbouring lanes of 2 HALF rows: a lane keeps the half of the rows that its bit HALF stands for, and gets the other lane's share
 * of them; in the end it has the sum of one row. */
template <int HALF, int LANES> __device__ __forceinline__ void exchange_rows(float (&p)[LANES])
{
    if constexpr (HALF > 0) {
        bool upper = threadIdx.x & HALF;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            float pass = upper ? p[i] : p[i + HALF], keep = upper ? p[i + HALF] : p[i];
            p[i] = keep + __shfl_xor_sync(~0u, pass, HALF);
        }
        exchange_rows<HALF / 2>(p);
    }
}

/* Where a lane finds what it needs of a tile: B of its first state and D of its channel, of the first four rows. */
struct lane_rows {
    const float4 *b, *delta;
};

/* What a lane needs of four rows. */
template <int PER> struct four_rows {
    float b[PER][4], c[PER][4], d[4], dc[4];
};

template <int LANES, int PER> __device__ __forceinline__ struct four_rows<PER> load_rows(const struct lane_rows &m, int four)
{
    struct four_rows<PER> r;
    const float4 *b = m.b + four * 2 * LANES * PER, *delta = m.delta + four * 2 * scan_shape<LANES, PER>::CH;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        load4(r.b[i], (const float *)(b + i * LANES));
        load4(r.c[i], (const float *)(b + (PER + i) * LANES));
    }
    load4(r.d, (const float *)delta);
    load4(r.dc, (const float *)(delta + 1));
    return r;
}

template <int PER> __device__ __forceinline__ void next_states(struct lane_states<PER> &l, const struct four_rows<PER> &r, int t)
{
#pragma unroll
    for (int i = 0; i < PER; i++)
        l.s[i] = mamba_next(l.s[i], r.d[t], l.rate[i], r.dc[t], r.b[i][t]);
}

/* The lane's share of a row's sum. */
template <int PER> __device__ __forceinline__ float share(const struct lane_states<PER> &l, const struct four_rows<PER> &r, int t)
{
    float p = l.s[0] * r.c[0][t];
#pragma unroll
    for (int i = 1; i < PER; i++)
        p = fmaf(l.s[i], r.c[i][t], p);
    return p;
}

/* A tile of the run, all of it. y: where the sums of the lane's first row go. */
template <int LANES, int PER> __device__ __forceinline__ void scan_tile(struct lane_states<PER> &l, const struct lane_rows &m, float *y)
{
    typedef scan_shape<LANES, PER> shape;
    float sum[shape::BATCHES];
#pragma unroll
    for (int k = 0; k < shape::BATCHES; k++) {
        float p[LANES];
#pragma unroll
        for (int q = 0; q < LANES / 4; q++) {
            struct four_rows<PER> r = load_rows<LANES, PER>(m, k * (LANES / 4) + q);
#pragma unroll
            for (int t = 0; t < 4; t++) {
                next_states(l, r, t);
                p[q * 4 + t] = share(l, r, t);
            }
        }
        exchange_rows<LANES / 2>(p);
        sum[k] = p[0]; /* of row threadIdx.x % LANES */
    }
#pragma unroll
    for (int k = 0; k < shape::BATCHES; k++)
        y[k * LANES * shape::CH] = sum[k];
}

/* The same where rows t0 .. are not all of the run, or states are saved after some. *save: the next entry that is to be saved. */
template <int LANES, int PER>
__device__ __forceinline__ void scan_careful(const struct scan_args &a, const struct kern_run &run, const struct scan_rows &rows,
                                             struct lane_states<PER> &l, const struct lane_rows &m, float *y, int t0, int *save, int e)
{
    typedef scan_shape<LANES, PER> shape;
    for (int k = 0; k < shape::BATCHES; k++) {
        float p[LANES];
#pragma unroll
        for (int q = 0; q < LANES / 4; q++) {
            struct four_rows<PER> r = load_rows<LANES, PER>(m, k * (LANES / 4) + q);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int t = t0 + k * LANES + q * 4 + j;
                if (t >= rows.begin && t < rows.end)
                    next_states(l, r, j);
                p[q * 4 + j] = share(l, r, j);
                for (; *save < run.save0 + run.n_save && a.s.saves[*save].row == rows.row0 + t; ++*save)
                    store_states<LANES, PER>(a, l, a.s.saves[*save].slot, e);
            }
        }
        exchange_rows<LANES / 2>(p);
        int mine = t0 + k * LANES + threadIdx.x % LANES;
        if (mine >= rows.begin && mine < rows.end)
            y[k * LANES * shape::CH] = p[0];
    }
}

template <int LANES, int PER>
__device__ __forceinline__ void load_states(const struct scan_args &a, struct lane_states<PER> &l, int slot, int e)
{
    const float *state = a.s.state(slot);
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int n = i * LANES + threadIdx.x % LANES;
        bool real = n < a.w.n_state && e < a.w.e;
        size_t at = (size_t)e * a.w.n_state + n;
        l.rate[i] = real ? a.w.rate[at] : 0;
        l.s[i] = real && state ? state[(size_t)(a.w.n_conv - 1) * a.w.e + at] : 0;
    }
}

/* The last rows of a for the slots that are written, a thread a channel: entries are read before they are written, as they move to the front. */
template <int CH> __device__ static void store_tails(const struct scan_args &a, const struct kern_run &run, int e0)
{
    int e = e0 + threadIdx.x, last = a.w.n_conv - 2;
    if (threadIdx.x >= CH || e >= a.w.e)
        return;
    const float *tail = a.s.state(run.state_in);
    for (int i = 0; i <= run.n_save; i++) {
        struct kern_save to = {run.row0 + run.n - 1, run.state_out};
        if (i < run.n_save)
            to = a.s.saves[run.save0 + i];
        const float *newest = a.b.az + (size_t)to.row * a.w.zp;
        for (int j = 0; j <= last && to.slot >= 0; j++)
            a.s.state(to.slot)[(size_t)j * a.w.e + e] = mamba_a(a.w, newest, a.w.zp, tail, to.row - run.row0, last - j, e);
    }
}

template <int LANES, int PER> __global__ static void __launch_bounds__(THREADS, 4) scan_channels(const __grid_constant__ struct scan_args a)
{
    typedef scan_shape<LANES, PER> shape;
    extern __shared__ __align__(16) float raw[];
    struct kern_run run = a.s.runs[blockIdx.y];
    struct scan_rows rows = {run.row0 & ~3, run.row0 & 3, (run.row0 & 3) + run.n};
    int e0 = blockIdx.x * shape::CH, ch = threadIdx.x / LANES, e = e0 + ch, n = threadIdx.x % LANES, tiles = div_up(rows.end, shape::TILE),
        save = run.save0;
    struct lane_states<PER> l;
    tile_feed<LANES, PER> feed(a, rows, raw, e0, tiles);
    for (int i = 0; i < shape::STAGES - 1; i++)
        feed.next();
    load_states<LANES, PER>(a, l, run.state_in, e);
    int next_save = run.n_save ? a.s.saves[save].row - rows.row0 : INT_MAX;
    float *y = a.b.y_at(rows.row0 + n, e);
    for (int tile = 0, stage = 0; tile < tiles; tile++, y += shape::TILE * shape::CH) {
        const float4 *now = (const float4 *)(raw + stage * shape::STAGE);
        copy_wait<shape::STAGES - 2>();
        __syncthreads(); /* the tile has come, and everyone is done with the one before */
        feed.next();
        stage = stage + 1 < shape::STAGES ? stage + 1 : 0;
        struct lane_rows at = {now + n, now + shape::BC / 4 + ch * 2};
        int t0 = tile * shape::TILE, t1 = t0 + shape::TILE;
        if (t0 >= rows.begin && t1 <= rows.end && next_save >= t1)
            scan_tile<LANES, PER>(l, at, y);
        else {
            scan_careful<LANES, PER>(a, run, rows, l, at, y, t0, &save, e);
            next_save = save < run.save0 + run.n_save ? a.s.saves[save].row - rows.row0 : INT_MAX;
        }
    }
    store_states<LANES, PER>(a, l, run.state_out, e);
    store_tails<shape::CH>(a, run, e0);
}

template <int LANES, int PER> static int start(struct cuda_ctx *c, const struct scan_args &a)
{
    typedef scan_shape<LANES, PER> shape;
    auto kernel = scan_channels<LANES, PER>;
    int bytes = shape::BYTES, r = bytes <= SHARED_UNASKED ? 0 : cuda_allow_shared(c, (const void *)kernel, bytes);
    if (r < 0)
        return r;
    kernel<<<dim3(div_up(a.w.e, shape::CH), a.s.n_runs), THREADS, bytes, c->stream>>>(a);
    return launched(&c->k, "mamba scan");
}

int mamba_scan(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b)
{
    struct scan_args a = {m->w, s, b};
    int lanes = mamba_lanes(m->w.n_state), per = mamba_states_a_lane(m->w.n_state);
    if (lanes < 32)
        return lanes == 4 ? start<4, 1>(c, a) : lanes == 8 ? start<8, 1>(c, a) : start<16, 1>(c, a);
    return per == 1 ? start<32, 1>(c, a) : per == 2 ? start<32, 2>(c, a) : start<32, 4>(c, a);
}
