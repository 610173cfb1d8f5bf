/* The Mamba router's recurrence: S = 2^(D rate) S + D c B and y = sum_i S C, row by row.
 *
 * A block takes CH channels of one run. LANES lanes hold the states of a channel, PER each. Rows come through shared memory in tiles, the next
 * tile while one is worked on: first D = softplus(dt) and D c of the tile's rows and channels, a thread each, then the recurrence.
 * It goes LANES rows at a time, so that the sums over a channel's states are taken together: in each of log2(LANES) exchanges a lane passes on half of the
 * rows that it still has and keeps the other half, and ends with the sum of one row. Each sum is the same tree over the lanes. */
#include "kernels/cuda/mamba.cuh"
#include "kernels/cuda/mma.cuh"

/* Rows of a tile: LONG_TILE, or where rows of (dt, B, C) are wide SHORT_TILE: 85 KiB of shared memory at most. */
enum { THREADS = 128, LONG_TILE = 64, SHORT_TILE = 32, DELTA_LD = LONG_TILE + 2, SHARED_UNASKED = 48 << 10 };

template <int LANES> struct scan_shape {
    enum { CH = THREADS / LANES };
};

/* Shared memory: two stages of rows (dt, B, C) and of c, then D and D c [CH, DELTA_LD], y [tile, CH], and zeros that lanes without a state read. */
template <int LANES> struct scan_smem {
    enum { CH = scan_shape<LANES>::CH };
    float *stage;
    float2 *delta;
    float *y, *zeros;
    int tile, stage_floats, c_off;
    __device__ __forceinline__ scan_smem(float *p, int xp, int rows)
    {
        tile = rows;
        stage = p;
        c_off = tile * xp;
        stage_floats = tile * (xp + CH);
        delta = (float2 *)(p + 2 * stage_floats);
        y = (float *)(delta + CH * DELTA_LD);
        zeros = y + tile * CH;
    }
    /* Of tile number i. */
    __device__ __forceinline__ float *x(int i) const { return stage + (i & 1) * stage_floats; }
    __device__ __forceinline__ float *c(int i) const { return x(i) + c_off; }
    static int bytes(int tile, int xp, int n_state)
    {
        const int channels = CH, ld = DELTA_LD;
        return (int)sizeof(float) * (2 * tile * (xp + channels) + 2 * channels * ld + tile * channels + n_state + 1);
    }
};

struct scan_args {
    struct mamba_weights w;
    struct mamba_step s;
    struct mamba_rows b;
    int tile;
};

/* Starts the copies of rows t0 .. of the run; what lies beyond the run is not read. */
template <int LANES>
__device__ __forceinline__ void fetch_tile(const struct scan_args &a, const struct kern_run &run, const scan_smem<LANES> &m, int tile,
                                           int e0)
{
    const int CH = scan_shape<LANES>::CH, CHUNKS = CH / 4;
    int t0 = tile * m.tile, n = run.n - t0 < m.tile ? run.n - t0 : m.tile;
    size_t row0 = (size_t)run.row0 + t0;
    uint32_t x = smem_address(m.x(tile)), c = smem_address(m.c(tile));
    for (int i = threadIdx.x; i < n * a.w.xp / 4; i += THREADS)
        copy16(x + i * 16, a.b.x + row0 * a.w.xp + i * 4, true);
    for (int i = threadIdx.x; i < n * CHUNKS; i += THREADS) {
        int t = i / CHUNKS, e = e0 + i % CHUNKS * 4;
        copy16(c + i * 16, a.b.c + (row0 + t) * a.w.ep + e, e < a.w.ep);
    }
}

/* D and D c of the tile; y of the tile before goes out. */
template <int LANES>
__device__ __forceinline__ void between_tiles(const struct scan_args &a, const struct kern_run &run, const scan_smem<LANES> &m, int tile,
                                              int e0)
{
    const int CH = scan_shape<LANES>::CH;
    int ch = threadIdx.x % CH, e = e0 + ch;
    const float *x = m.x(tile), *c = m.c(tile);
    for (int t = threadIdx.x / CH; t < m.tile; t += THREADS / CH) {
        int before = (tile - 1) * m.tile + t;
        if (tile > 0 && e < a.w.e)
            a.b.y[((size_t)run.row0 + before) * a.w.ep + e] = m.y[t * CH + ch];
        if (tile * m.tile + t >= run.n || e >= a.w.e)
            continue;
        float dt = a.w.dt_bias[e];
        for (int j = 0; j < a.w.n_dt; j++)
            dt = fmaf(a.w.dt[(size_t)j * a.w.e + e], x[t * a.w.xp + j], dt);
        dt = softplus(dt);
        m.delta[ch * DELTA_LD + t] = make_float2(dt, dt * c[t * CH + ch]);
    }
}

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

/* Where a lane finds its B; its C is c_off further. A lane without a state reads zeros. */
struct lane_rows {
    const float *b;
    int ld, c_off, n_state;
};

template <int LANES, int PER> __device__ __forceinline__ float state_input(const struct lane_rows &m, const float *row, int i)
{
    return PER == 1 || i * LANES + (int)threadIdx.x % LANES < m.n_state ? row[i * LANES] : 0.0f;
}

/* LANES rows, the first being row t0 of the run: their D and D c, and where their sums go. CAREFUL: some are beyond the run, or states are saved after
 * some. LD: floats from a row of (dt, B, C) to the next, where it is known. */
template <int LANES, int PER, int LD, bool CAREFUL>
__device__ __forceinline__ void scan_batch(const struct scan_args &a, const struct kern_run &run, struct lane_states<PER> &l,
                                           const struct lane_rows &m, const float2 *delta, float *y, int t0, int *save, int e)
{
    float p[LANES];
#pragma unroll
    for (int t = 0; t < LANES; t++) {
        float2 d = delta[t];
        const float *row = m.b + t * (LD ? LD : m.ld);
        if (!CAREFUL || t0 + t < run.n)
#pragma unroll
            for (int i = 0; i < PER; i++)
                l.s[i] = mamba_next(l.s[i], d.x, l.rate[i], d.y, state_input<LANES, PER>(m, row, i));
        p[t] = l.s[0] * state_input<LANES, PER>(m, row + m.c_off, 0);
#pragma unroll
        for (int i = 1; i < PER; i++)
            p[t] = fmaf(l.s[i], state_input<LANES, PER>(m, row + m.c_off, i), p[t]);
        if (CAREFUL)
            for (; *save < run.save0 + run.n_save && a.s.saves[*save].row == run.row0 + t0 + t; ++*save)
                store_states<LANES, PER>(a, l, a.s.saves[*save].slot, e);
    }
    exchange_rows<LANES / 2>(p);
    y[threadIdx.x % LANES * scan_shape<LANES>::CH] = p[0]; /* of row threadIdx.x % LANES */
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
template <int LANES> __device__ static void store_tails(const struct scan_args &a, const struct kern_run &run, int e0)
{
    int e = e0 + threadIdx.x, last = a.w.n_conv - 2;
    if (threadIdx.x >= scan_shape<LANES>::CH || e >= a.w.e)
        return;
    const float *tail = a.s.state(run.state_in);
    for (int i = 0; i <= run.n_save; i++) {
        struct kern_save to = {run.row0 + run.n - 1, run.state_out};
        if (i < run.n_save)
            to = a.s.saves[run.save0 + i];
        for (int j = 0; j <= last && to.slot >= 0; j++)
            a.s.state(to.slot)[(size_t)j * a.w.e + e] = mamba_a(a.w, a.b.az, tail, to.row, to.row - run.row0, last - j, e);
    }
}

template <int LANES, int PER, int LD>
__global__ static void __launch_bounds__(THREADS) scan_channels(const __grid_constant__ struct scan_args a)
{
    extern __shared__ __align__(16) float raw[];
    const int CH = scan_shape<LANES>::CH;
    struct scan_smem<LANES> m(raw, a.w.xp, a.tile);
    struct kern_run run = a.s.runs[blockIdx.y];
    int e0 = blockIdx.x * CH, ch = threadIdx.x / LANES, e = e0 + ch, n = threadIdx.x % LANES, tiles = (run.n + a.tile - 1) / a.tile,
        save = run.save0;
    struct lane_states<PER> l;
    load_states<LANES, PER>(a, l, run.state_in, e);
    for (int i = threadIdx.x; i <= a.w.n_state; i += THREADS)
        m.zeros[i] = 0;
    fetch_tile<LANES>(a, run, m, 0, e0);
    copy_commit();
    for (int tile = 0; tile < tiles; tile++) {
        copy_wait<0>();
        __syncthreads(); /* the tile has come, and everyone is done with the one before */
        if (tile + 1 < tiles)
            fetch_tile<LANES>(a, run, m, tile + 1, e0);
        copy_commit();
        between_tiles<LANES>(a, run, m, tile, e0);
        __syncthreads();
        bool real = PER > 1 || n < a.w.n_state;
        struct lane_rows rows = {real ? m.x(tile) + a.w.n_dt + n : m.zeros, real ? a.w.xp : 0, a.w.n_state, a.w.n_state};
        for (int t = 0; t < m.tile && tile * m.tile + t < run.n; t += LANES, rows.b += LANES * rows.ld) {
            int t0 = tile * m.tile + t;
            const float2 *delta = m.delta + ch * DELTA_LD + t;
            float *y = m.y + t * CH + ch;
            if (t0 + LANES > run.n || (save < run.save0 + run.n_save && a.s.saves[save].row < run.row0 + t0 + LANES))
                scan_batch<LANES, PER, LD, true>(a, run, l, rows, delta, y, t0, &save, e);
            else
                scan_batch<LANES, PER, LD, false>(a, run, l, rows, delta, y, t0, &save, e);
        }
    }
    __syncthreads();
    for (int t = threadIdx.x / CH + (tiles - 1) * m.tile; t < run.n; t += THREADS / CH)
        if (e0 + (int)threadIdx.x % CH < a.w.e)
            a.b.y[((size_t)run.row0 + t) * a.w.ep + e0 + threadIdx.x % CH] = m.y[t % m.tile * CH + threadIdx.x % CH];
    store_states<LANES, PER>(a, l, run.state_out, e);
    store_tails<LANES>(a, run, e0);
}

template <int LANES, int PER, int LD> static int start(struct cuda_ctx *c, struct scan_args a)
{
    a.tile = scan_smem<LANES>::bytes(LONG_TILE, a.w.xp, a.w.n_state) <= SHARED_UNASKED ? LONG_TILE : SHORT_TILE;
    int bytes = scan_smem<LANES>::bytes(a.tile, a.w.xp, a.w.n_state);
    auto kernel = scan_channels<LANES, PER, LD>;
    int r = bytes <= SHARED_UNASKED ? 0 : cuda_allow_shared(c, (const void *)kernel, bytes);
    if (r < 0)
        return r;
    kernel<<<dim3(div_up(a.w.e, scan_shape<LANES>::CH), a.s.n_runs), THREADS, bytes, c->stream>>>(a);
    return launched(&c->k, "mamba scan");
}

int mamba_scan(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b)
{
    struct scan_args a = {m->w, s, b, 0};
    int lanes = mamba_lanes(m->w.n_state), per = mamba_states_a_lane(m->w.n_state);
    if (m->w.n_state == 16 && m->w.xp == 36) /* the defaults */
        return start<16, 1, 36>(c, a);
    if (lanes < 32)
        return lanes == 4 ? start<4, 1, 0>(c, a) : lanes == 8 ? start<8, 1, 0>(c, a) : start<16, 1, 0>(c, a);
    return per == 1 ? start<32, 1, 0>(c, a) : per == 2 ? start<32, 2, 0>(c, a) : start<32, 4, 0>(c, a);
}
