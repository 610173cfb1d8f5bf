/* The Mamba router in float32 as the class portable-1 defines it (kernels/cpu/mamba_rows.c and mamba_scan.c are its plain form): products by the accurate
 * matmul, no operation fused elsewhere, a channel's states in four parts. */
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/mamba.cuh"

enum { THREADS = 128, PARTS = 4, CHANNELS = THREADS / PARTS, WARPS = 4 };

struct f32_args {
    struct mamba_weights w;
    struct mamba_step s;
    float *u, *normed;    /* [n, r] */
    float *az, *c, *x;    /* [n, zp = 2e], [n, e], [n, n_dt + 2 n_state] */
    float *delta, *input; /* [n, e] D, D c */
    float *y;             /* [n, e] sum over the states of S C */
};

__device__ __forceinline__ int x_cols(const struct mamba_weights &w)
{
    return w.n_dt + 2 * w.n_state;
}

__global__ static void __launch_bounds__(THREADS) norm_rows(const __grid_constant__ struct f32_args a)
{
    int r = (blockIdx.x * THREADS + threadIdx.x) / LANES, d = a.w.r;
    const float *u = r < rows_count(a.s.all) ? a.u + (size_t)r * d : NULL;
    float scale = lanes_rms_scale(u, d, d, a.w.eps);
    for (int j = threadIdx.x % LANES; u && j < d; j += LANES)
        a.normed[(size_t)r * d + j] = u[j] * scale * a.w.norm[j];
}

__global__ static void __launch_bounds__(THREADS) conv_rows(const __grid_constant__ struct f32_args a)
{
    int r = blockIdx.x, e = blockIdx.y * THREADS + threadIdx.x;
    if (r >= rows_count(a.s.all) || e >= a.w.e)
        return;
    struct kern_run run = a.s.runs[a.s.run_of[r]];
    const float *tail = a.s.state(run.state_in), *newest = a.az + (size_t)r * a.w.zp;
    float sum = a.w.conv_bias[e];
    for (int j = 0; j < a.w.n_conv; j++)
        sum = sum + a.w.conv[(size_t)j * a.w.e + e] * mamba_a(a.w, newest, a.w.zp, tail, r - run.row0, a.w.n_conv - 1 - j, e);
    a.c[(size_t)r * a.w.e + e] = portable_silu(sum);
}

__global__ static void __launch_bounds__(THREADS) delta_rows(const __grid_constant__ struct f32_args a)
{
    int r = blockIdx.x, e = blockIdx.y * THREADS + threadIdx.x;
    if (r >= rows_count(a.s.all) || e >= a.w.e)
        return;
    const float *dt = a.x + (size_t)r * x_cols(a.w);
    size_t at = (size_t)r * a.w.e + e;
    float d = a.w.dt_bias[e];
    for (int j = 0; j < a.w.n_dt; j++)
        d = d + a.w.dt[(size_t)j * a.w.e + e] * dt[j];
    d = portable_softplus(d);
    a.delta[at] = d;
    a.input[at] = d * a.c[at];
}

/* ---- the scan: four threads a channel of a run, each with a part of its states ---- */

template <int PER> struct part_states {
    int i0, n; /* states i0 .. i0+n-1 */
    float s[PER], rate[PER];
};

template <int PER>
__device__ __forceinline__ void load_part(const struct f32_args &a, struct part_states<PER> &l, int slot, int e, int part)
{
    const float *state = a.s.state(slot);
    l.i0 = part * a.w.n_state / PARTS;
    l.n = e < a.w.e ? (part + 1) * a.w.n_state / PARTS - l.i0 : 0;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        size_t at = (size_t)e * a.w.n_state + l.i0 + i;
        l.rate[i] = i < l.n ? a.w.rate[at] : 0;
        l.s[i] = i < l.n && state ? state[(size_t)(a.w.n_conv - 1) * a.w.e + at] : 0;
    }
}

template <int PER> __device__ __forceinline__ void store_part(const struct f32_args &a, const struct part_states<PER> &l, int slot, int e)
{
    float *state = a.s.state(slot);
#pragma unroll
    for (int i = 0; i < PER; i++)
        if (state && i < l.n)
            state[(size_t)(a.w.n_conv - 1) * a.w.e + (size_t)e * a.w.n_state + l.i0 + i] = l.s[i];
}

/* The part's states after row r, and its share of the sum. */
template <int PER> __device__ __forceinline__ float next_row(const struct f32_args &a, struct part_states<PER> &l, int r, int e)
{
    if (e >= a.w.e)
        return 0;
    const float *of_b = a.x + (size_t)r * x_cols(a.w) + a.w.n_dt + l.i0, *of_c = of_b + a.w.n_state;
    float delta = a.delta[(size_t)r * a.w.e + e], input = a.input[(size_t)r * a.w.e + e], y = 0;
#pragma unroll
    for (int i = 0; i < PER; i++)
        if (i < l.n) {
            l.s[i] = portable_decay(delta * l.rate[i]) * l.s[i] + input * of_b[i];
            y = y + l.s[i] * of_c[i];
        }
    return y;
}

/* The last rows of a for a slot that is written, a thread a channel: entries are read before they are written, as they move to the front. */
__device__ static void store_tail(const struct f32_args &a, const struct kern_run &run, struct kern_save to, int e)
{
    const float *tail = a.s.state(run.state_in), *newest = a.az + (size_t)to.row * a.w.zp;
    float *state = a.s.state(to.slot);
    int last = a.w.n_conv - 2;
    for (int j = 0; j <= last && state; j++)
        state[(size_t)j * a.w.e + e] = mamba_a(a.w, newest, a.w.zp, tail, to.row - run.row0, last - j, e);
}

template <int PER> __global__ static void __launch_bounds__(THREADS) scan_channels(const __grid_constant__ struct f32_args a)
{
    struct kern_run run = a.s.runs[blockIdx.y];
    int e = blockIdx.x * CHANNELS + threadIdx.x / PARTS, part = threadIdx.x % PARTS, save = run.save0, saves = run.save0 + run.n_save;
    struct part_states<PER> l;
    load_part<PER>(a, l, run.state_in, e, part);
    for (int r = run.row0; r < run.row0 + run.n; r++) {
        float y = next_row<PER>(a, l, r, e);
        y += __shfl_xor_sync(~0u, y, 1);
        y += __shfl_xor_sync(~0u, y, 2);
        if (part == 0 && e < a.w.e)
            a.y[(size_t)r * a.w.e + e] = y;
        for (; save < saves && a.s.saves[save].row == r; save++)
            store_part<PER>(a, l, a.s.saves[save].slot, e);
    }
    store_part<PER>(a, l, run.state_out, e);
    if (part || e >= a.w.e)
        return;
    for (int i = run.save0; i < saves; i++)
        store_tail(a, run, a.s.saves[i], e);
    store_tail(a, run, {run.row0 + run.n - 1, run.state_out}, e);
}

/* ---- the decision ---- */

/* sum_i w[i] x(i) in 8 lanes, of which this thread is one, and their tree. */
template <typename F> __device__ __forceinline__ double dot_wide(const double *w, int n, F x)
{
    double sum = 0;
    for (int i = threadIdx.x % 8; i < n; i += 8)
        sum += w[i] * x(i);
    return lanes8_tree(sum);
}

/* A warp a row. */
__global__ static void __launch_bounds__(32 * WARPS)
    decide_rows(const __grid_constant__ struct f32_args a, const __grid_constant__ struct mamba_end end)
{
    int r = blockIdx.x * WARPS + threadIdx.x / 32;
    if (r >= rows_count(a.s.all))
        return;
    const struct mamba_weights &w = a.w;
    const float *y = a.y + (size_t)r * w.e, *c = a.c + (size_t)r * w.e, *z = a.az + (size_t)r * w.zp + w.e, *u = a.u + (size_t)r * w.r;
    double of_u = dot_wide(w.of_u, w.r, [&](int i) { return u[i]; });
    double of_y = dot_wide(w.of_y, w.e, [&](int e) { return (y[e] + w.skip[e] * c[e]) * portable_silu(z[e]); });
    if (threadIdx.x % 32 == 0)
        mamba_decide(end, r, of_u + of_y + w.offset);
}

/* ---- the op ---- */

static float *cut(float **p, size_t n, size_t columns)
{
    float *mine = *p;
    *p += (n * columns + 3) / 4 * 4;
    return mine;
}

static size_t divide(struct f32_args *a, float *base, size_t n)
{
    float *p = base;
    a->u = cut(&p, n, a->w.r);
    a->normed = cut(&p, n, a->w.r);
    a->az = cut(&p, n, a->w.zp);
    a->c = cut(&p, n, a->w.e);
    a->x = cut(&p, n, a->w.n_dt + 2 * a->w.n_state);
    a->delta = cut(&p, n, a->w.e);
    a->input = cut(&p, n, a->w.e);
    a->y = cut(&p, n, a->w.e);
    return p - base;
}

static int multiply(struct cuda_ctx *c, float *y, const float *x, const struct kern_matrix *w, struct rows n)
{
    return c->k.ops->matmul_accurate(&c->k, dev_f32_in(to_dev(y), 0), dev_f32_in(to_dev((void *)x), 0), w, n);
}

static void scan(struct cuda_ctx *c, const struct f32_args &a)
{
    dim3 grid(div_up(a.w.e, CHANNELS), a.s.n_runs);
    if (a.w.n_state <= 16)
        scan_channels<4><<<grid, THREADS, 0, c->stream>>>(a);
    else if (a.w.n_state <= 32)
        scan_channels<8><<<grid, THREADS, 0, c->stream>>>(a);
    else if (a.w.n_state <= 64)
        scan_channels<16><<<grid, THREADS, 0, c->stream>>>(a);
    else
        scan_channels<32><<<grid, THREADS, 0, c->stream>>>(a);
}

int mamba_f32(struct cuda_ctx *c, const struct kern_mamba *m, const struct dev_f32 *x, const struct mamba_step &s,
              const struct mamba_end &end)
{
    struct f32_args a = {m->w, s};
    int n = s.all.n_max;
    a.w.zp = 2 * a.w.e; /* as the product leaves it */
    float *scratch = (float *)cuda_scratch(c, SCRATCH_MAMBA, (divide(&a, NULL, n) + 4) * sizeof(float));
    if (!scratch)
        return c->failed.code ? c->failed.code : ERR_NOMEM;
    divide(&a, scratch, n);
    dim3 channels(n, div_up(a.w.e, THREADS));
    int r = c->k.ops->matmul_accurate(&c->k, dev_f32_in(to_dev(a.u), 0), x, m->in, s.all);
    norm_rows<<<div_up(n * LANES, THREADS), THREADS, 0, c->stream>>>(a);
    if (r >= 0)
        r = multiply(c, a.az, a.normed, m->mix, s.all);
    conv_rows<<<channels, THREADS, 0, c->stream>>>(a);
    if (r >= 0)
        r = multiply(c, a.x, a.c, m->x, s.all);
    delta_rows<<<channels, THREADS, 0, c->stream>>>(a);
    scan(c, a);
    decide_rows<<<div_up(n, WARPS), 32 * WARPS, 0, c->stream>>>(a, end);
    return r < 0 ? r : launched(&c->k, "mamba_f32");
}
