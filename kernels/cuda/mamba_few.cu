/* The Mamba router for runs of one row, as in decoding: all that follows u in one kernel, a block a row.
 *
 * Every sum is taken as the kernels for many rows take it (mamba.cuh, mamba_tile.cu, mamba_rows.cu, mamba_scan.cu), so a row has the same bits either way. */
#include "kernels/cuda/mamba.cuh"

enum { THREADS = 256, SMEM_MOST = 48 << 10 };

struct few_args {
    struct mamba_weights w;
    struct mamba_step s;
    const float *u; /* [n, r], or: */
    struct mamba_parts_of_u p;
    struct mamba_end end;
    int lanes, per; /* of a channel's states, as mamba_scan.cu has them */
};

/* Shared memory. */
struct few_smem {
    float *u, *normed; /* [rk] */
    float *az;         /* [zp] */
    float *c, *y;      /* [ep] */
    float *slices;     /* [ep / SLICE, xp] */
    float *x;          /* [xp] */
    float *delta;      /* [ep] */
};

static __host__ __device__ __forceinline__ int divide(struct few_smem *m, const struct mamba_weights &w, float *p)
{
    float *const first = p;
    m->u = p;
    m->normed = p += w.rk;
    m->az = p += w.rk;
    m->c = p += w.zp;
    m->y = p += w.ep;
    m->slices = p += w.ep;
    m->x = p += w.ep / SLICE * w.xp;
    m->delta = p += w.xp;
    return (int)(p + w.ep - first);
}

/* What the phases below read comes to the L2 cache while the first is at work. */
__device__ __forceinline__ void prefetch(const void *p, size_t bytes)
{
    for (size_t i = threadIdx.x * 128; i < bytes; i += THREADS * 128)
        asm volatile("prefetch.global.L2 [%0];" ::"l"((const char *)p + i));
}

__device__ __forceinline__ void add_parts(const struct few_args &a, float *u, int r)
{
    for (int c = threadIdx.x; c < a.w.rk; c += THREADS) {
        float acc = 0;
#pragma unroll 5
        for (int b = 0; b < a.p.blocks && c < a.w.r; b++)
            acc = fmaf(a.p.part[((size_t)b * FEW_ROWS + r) * a.p.ld + c], a.p.unscale[b * FEW_ROWS + r], acc);
        u[c] = c < a.w.r ? acc * a.p.w_unscale + a.p.bias[c] : 0;
    }
}

__device__ __forceinline__ void mix(const struct few_args &a, const struct few_smem &m)
{
    float scale = mamba_norm_scale(m.u, a.w.r, a.w.eps); /* by each warp for itself */
    for (int j = threadIdx.x; j < a.w.rk; j += THREADS)
        m.normed[j] = m.u[j] * scale * a.w.norm[j];
    __syncthreads();
    for (int c = threadIdx.x; c < a.w.zp; c += THREADS) {
        float sum = 0;
        for (int s = 0; s < a.w.rk / SLICE; s++)
            sum += mamba_slice(m.normed, a.w.mix_t, a.w.mix_ld, s, c);
        m.az[c] = sum;
    }
    __syncthreads();
}

__device__ __forceinline__ void convolve(const struct few_args &a, const struct few_smem &m, const float *tail)
{
    for (int e = threadIdx.x; e < a.w.ep; e += THREADS)
        m.c[e] = e < a.w.e ? mamba_c(a.w, m.az, 0, tail, 0, e) : 0;
    __syncthreads();
}

__device__ __forceinline__ void project(const struct few_args &a, const struct few_smem &m)
{
    int slices = a.w.ep / SLICE;
    for (int i = threadIdx.x; i < slices * a.w.xp; i += THREADS)
        m.slices[i] = mamba_slice(m.c, a.w.x_t, a.w.x_ld, i / a.w.xp, i % a.w.xp);
    __syncthreads();
    for (int c = threadIdx.x; c < a.w.xp; c += THREADS) {
        float sum = 0;
        for (int s = 0; s < slices; s++)
            sum += m.slices[s * a.w.xp + c];
        m.x[c] = sum;
    }
    __syncthreads();
    for (int e = threadIdx.x; e < a.w.e; e += THREADS) {
        float d[1];
        mamba_delta(a.w, m.x, 0, e, d);
        m.delta[e] = d[0];
    }
    __syncthreads();
}

/* State n of channel e goes on, to the slots that want it; its share of y's sum. */
__device__ __forceinline__ float next_state(const struct few_args &a, const struct few_smem &m, const struct kern_run &run,
                                            const float *from, int e, int n, float p, bool first)
{
    size_t at = (size_t)e * a.w.n_state + n, state = (size_t)(a.w.n_conv - 1) * a.w.e + at;
    bool real = e < a.w.e && n < a.w.n_state;
    float delta = real ? m.delta[e] : 0, s = real && from ? from[state] : 0, cm = real ? m.x[a.w.n_dt + a.w.n_state + n] : 0;
    s = mamba_next(s, delta, real ? a.w.rate[at] : 0, real ? delta * m.c[e] : 0, real ? m.x[a.w.n_dt + n] : 0);
    if (real && run.state_out >= 0)
        a.s.state(run.state_out)[state] = s;
    for (int i = 0; real && i < run.n_save; i++)
        a.s.state(a.s.saves[run.save0 + i].slot)[state] = s;
    return first ? s * cm : fmaf(s, cm, p);
}

__device__ __forceinline__ void scan(const struct few_args &a, const struct few_smem &m, const struct kern_run &run, const float *from)
{
    int lane = threadIdx.x % a.lanes, channels = THREADS / a.lanes;
    for (int e0 = 0; e0 < a.w.e; e0 += channels) {
        int e = e0 + threadIdx.x / a.lanes;
        float p = 0;
        for (int i = 0; i < a.per; i++)
            p = next_state(a, m, run, from, e, i * a.lanes + lane, p, i == 0);
        for (int half = a.lanes / 2; half; half /= 2)
            p += __shfl_xor_sync(~0u, p, half);
        if (lane == 0 && e < a.w.e)
            m.y[e] = mamba_y(p, a.w.skip[e], m.c[e], m.az[a.w.e + e]);
    }
}

/* The last rows of a, of which this is the newest: as store_tails of mamba_scan.cu. */
__device__ __forceinline__ void store_tails(const struct few_args &a, const struct few_smem &m, const struct kern_run &run,
                                            const float *tail)
{
    for (int e = threadIdx.x; e < a.w.e; e += THREADS)
        for (int i = 0; i <= run.n_save; i++) {
            int slot = i < run.n_save ? a.s.saves[run.save0 + i].slot : run.state_out;
            for (int j = 0; j < a.w.n_conv - 1 && slot >= 0; j++)
                a.s.state(slot)[(size_t)j * a.w.e + e] = mamba_a(a.w, m.az, 0, tail, 0, a.w.n_conv - 2 - j, e);
        }
}

__global__ static void __launch_bounds__(THREADS) few_rows(const __grid_constant__ struct few_args a)
{
    extern __shared__ __align__(16) float raw[];
    struct few_smem m;
    int r = blockIdx.x;
    divide(&m, a.w, raw);
    if (r >= rows_count(a.s.all))
        return;
    struct kern_run run = a.s.runs[r];
    const float *from = a.s.state(run.state_in);
    prefetch(a.w.mix_t, (size_t)a.w.rk * a.w.mix_ld * sizeof(float));
    prefetch(a.w.x_t, (size_t)a.w.ep * a.w.x_ld * sizeof(float));
    prefetch(a.w.rate, (size_t)a.w.e * a.w.n_state * sizeof(float));
    if (from)
        prefetch(from, a.s.state_floats * sizeof(float));
    if (a.p.part)
        add_parts(a, m.u, r);
    else
        for (int j = threadIdx.x; j < a.w.rk; j += THREADS)
            m.u[j] = j < a.w.r ? a.u[(size_t)r * a.w.r + j] : 0;
    __syncthreads();
    mix(a, m);
    convolve(a, m, from);
    project(a, m);
    scan(a, m, run, from);
    store_tails(a, m, run, from);
    __syncthreads();
    double margin = mamba_margin(a.w, m.u, [&](int e) { return m.y[e]; });
    if (threadIdx.x == 0)
        mamba_decide(a.end, r, margin);
}

static size_t smem_bytes(const struct mamba_weights &w)
{
    struct few_smem unused;
    return divide(&unused, w, (float *)NULL) * sizeof(float);
}

bool mamba_few_fits(const struct kern_mamba *m, const struct mamba_step &s)
{
    return s.all.n_max <= FEW_ROWS && s.n_runs == s.all.n_max && smem_bytes(m->w) <= SMEM_MOST;
}

int mamba_few(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const float *u, const struct mamba_parts_of_u &p,
              const struct mamba_end &end)
{
    struct few_args a = {m->w, s, u, p, end, mamba_lanes(m->w.n_state), mamba_states_a_lane(m->w.n_state)};
    few_rows<<<s.all.n_max, THREADS, smem_bytes(m->w), c->stream>>>(a);
    return launched(&c->k, "mamba few rows");
}
