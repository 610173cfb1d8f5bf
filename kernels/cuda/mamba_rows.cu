/* The Mamba router's kernels over rows, of any sizes: a and z, the convolution, (dt, B, C) and D before the scan; the decision after it. */
#include "kernels/cuda/mamba_rows.cuh"

/* ---- products ----
 *
 * y[r, c] = sum_i x[r, i] w_t[i, c] in slices (mamba.cuh). A block computes 16 TM rows and 64 columns, a thread TM rows, 16 apart, and 8 columns: four
 * and the same four 32 further. */
enum { COLUMNS = 64, PRODUCT_THREADS = 128, X_LD = SLICE + 4 };

struct product_args {
    const float *x, *w_t, *norm; /* norm: [k padded], or NULL; x is normed on the way */
    float *y;
    int ldx, ldw, ldy, k, k_slices, columns;
    float eps;
    struct rows all;
};

/* Inputs i0 .. of the block's rows, zero beyond k and the last row. */
template <int TM>
__device__ __forceinline__ void load_slice(const struct product_args &a, float (*xs)[X_LD], float (*ws)[COLUMNS], const float *scale,
                                           int m0, int n0, int i0, int m)
{
    for (int i = threadIdx.x; i < 16 * TM * SLICE; i += PRODUCT_THREADS) {
        int row = i / SLICE, j = i0 + i % SLICE;
        float v = m0 + row < m && j < a.k ? a.x[(size_t)(m0 + row) * a.ldx + j] : 0;
        xs[row][i % SLICE] = a.norm ? v * scale[row] * a.norm[j] : v;
    }
    for (int i = threadIdx.x; i < SLICE * COLUMNS / 4; i += PRODUCT_THREADS)
        *(float4 *)&ws[i / 16][i % 16 * 4] = *(const float4 *)&a.w_t[(size_t)(i0 + i / 16) * a.ldw + n0 + i % 16 * 4];
}

template <int TM> __global__ static void __launch_bounds__(PRODUCT_THREADS) product_tile(struct product_args a)
{
    __shared__ __align__(16) float xs[16 * TM][X_LD], ws[SLICE][COLUMNS], scale[16 * TM];
    int m = rows_count(a.all), m0 = blockIdx.x * 16 * TM, n0 = blockIdx.y * COLUMNS;
    if (m0 >= m)
        return;
    for (int i = threadIdx.x / 32; a.norm && i < 16 * TM && m0 + i < m; i += PRODUCT_THREADS / 32) {
        float s = mamba_norm_scale(a.x + (size_t)(m0 + i) * a.ldx, a.k, a.eps);
        if (threadIdx.x % 32 == 0)
            scale[i] = s;
    }
    int tx = threadIdx.x % 8, ty = threadIdx.x / 8;
    float sum[TM][8] = {};
    for (int s = 0; s < a.k_slices; s++) {
        __syncthreads();
        load_slice<TM>(a, xs, ws, scale, m0, n0, s * SLICE, m);
        __syncthreads();
        add_slice<TM, 8>(sum, xs[ty], X_LD, &ws[0][tx * 4], COLUMNS, 32);
    }
    for (int t = 0; t < TM; t++) {
        int r = m0 + ty + 16 * t;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int c = n0 + h * 32 + tx * 4;
            if (r < m && c < a.ldy) /* columns beyond the last are zero, as the weights are */
                *(float4 *)&a.y[(size_t)r * a.ldy + c] = four_sums(sum, t, h);
        }
    }
}

template <int TM> static void start_product(struct cuda_ctx *c, const struct product_args &a)
{
    dim3 grid(div_up(a.all.n_max, 16 * TM), div_up(a.columns, COLUMNS));
    product_tile<TM><<<grid, PRODUCT_THREADS, 0, c->stream>>>(a);
}

/* The largest tiles that still leave no more than a quarter of the device without one. */
static int product(struct cuda_ctx *c, const struct product_args &a)
{
    int tiles_of_16 = div_up(a.all.n_max, 16) * div_up(a.columns, COLUMNS), enough = c->n_sm * 3 / 4;
    if (tiles_of_16 >= 8 * enough)
        start_product<8>(c, a);
    else if (tiles_of_16 >= 4 * enough)
        start_product<4>(c, a);
    else if (tiles_of_16 >= 2 * enough)
        start_product<2>(c, a);
    else
        start_product<1>(c, a);
    return launched(&c->k, "mamba product");
}

/* ---- the convolution ---- */

enum { THREADS = 256 };

__global__ static void __launch_bounds__(THREADS)
    conv_rows(const __grid_constant__ struct mamba_weights w, const __grid_constant__ struct mamba_step s, const float *az, float *c)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    int r = (int)(i / w.ep), e = (int)(i % w.ep);
    if (r >= rows_count(s.all))
        return;
    float v = 0;
    if (e < w.e) {
        struct kern_run run = s.runs[s.run_of[r]];
        v = mamba_c(w, az + (size_t)r * w.zp, w.zp, s.state(run.state_in), r - run.row0, e);
    }
    c[i] = v;
}

/* ---- what the scan reads: a thread a channel, or a state of B or C, of four rows ---- */

__global__ static void __launch_bounds__(THREADS)
    put_rows(const __grid_constant__ struct mamba_weights w, struct rows all, const __grid_constant__ struct mamba_rows b)
{
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    int wide = w.ep + 2 * w.sp, j = (int)(i % wide), n = rows_count(all);
    size_t q = i / wide;
    if (q * 4 >= (size_t)n)
        return;
    const float *x = b.x + q * 4 * w.xp;
    if (j < w.ep)
        put_delta(w, b.delta_at(q, j), x, w.xp, b.c + q * 4 * w.ep, w.ep, n - (int)q * 4, j);
    else
        put_bc(w, b.bc + q * w.sp * 8, x, w.xp, n - (int)q * 4, j - w.ep);
}

static unsigned blocks_of(size_t threads)
{
    return (unsigned)((threads + THREADS - 1) / THREADS);
}

int mamba_rows_before(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b)
{
    const struct mamba_weights &w = m->w;
    struct product_args mix = {b.u, w.mix_t, w.norm, b.az, w.r, w.mix_ld, w.zp, w.r, w.rk / SLICE, w.zp, w.eps, s.all};
    struct product_args x = {b.c, w.x_t, NULL, b.x, w.ep, w.x_ld, w.xp, w.ep, w.ep / SLICE, w.xp, 0, s.all};
    int r = product(c, mix);
    if (r < 0)
        return r;
    conv_rows<<<blocks_of((size_t)s.all.n_max * w.ep), THREADS, 0, c->stream>>>(w, s, b.az, b.c);
    r = launched(&c->k, "mamba convolution");
    if (r >= 0)
        r = product(c, x);
    if (r < 0)
        return r;
    put_rows<<<blocks_of((size_t)div_up(s.all.n_max, 4) * (w.ep + 2 * w.sp)), THREADS, 0, c->stream>>>(w, s.all, b);
    return launched(&c->k, "mamba delta");
}

/* ---- the decision: a warp a row ---- */

enum { WARPS = 8 };

__global__ static void __launch_bounds__(32 * WARPS)
    decide_rows(const __grid_constant__ struct mamba_weights w, const __grid_constant__ struct mamba_step s,
                const __grid_constant__ struct mamba_rows b, const __grid_constant__ struct mamba_end end)
{
    int r = blockIdx.x * WARPS + threadIdx.x / 32;
    if (r >= rows_count(s.all))
        return;
    const float *c = b.c + (size_t)r * w.ep, *z = b.az + (size_t)r * w.zp + w.e;
    double margin = mamba_margin(w, b.u + (size_t)r * w.r, [&](int e) { return mamba_y(*b.y_at(r, e), w.skip[e], c[e], z[e]); });
    if (threadIdx.x % 32 == 0)
        mamba_decide(end, r, margin);
}

int mamba_rows_after(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b,
                     const struct mamba_end &end)
{
    decide_rows<<<div_up(s.all.n_max, WARPS), 32 * WARPS, 0, c->stream>>>(m->w, s, b, end);
    return launched(&c->k, "mamba decision");
}
