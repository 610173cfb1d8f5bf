/* The Mamba router on the device. Names are those of kernels/mamba.h.
 *
 * Many rows: u by the accurate matmul, what precedes the scan in one kernel, a block a tile of rows (mamba_tile.cu), or where that has not enough
 * shared memory in a kernel each for a and z, the convolution, dt with B and C, D (mamba_rows.cu); then the scan (mamba_scan.cu) and the decision
 * (mamba_rows.cu). Runs of one row, as in decoding: u, then all the rest in one kernel, a block a row (mamba_few.cu); at level wgmma u is computed in
 * parts of 64 columns of x, which that kernel adds up (mamba_few_sm90.cu). Both ways round alike, operation by operation: what they share is below. In
 * float32 all rows go another way (mamba_f32.cu). */
#pragma once
#include "kernels/cuda/route.cuh"
extern "C" {
#include "kernels/mamba_values.h"
}

/* Products other than u's are taken in slices of so many inputs: a chain of fused multiply-adds from 0 in each, and the slices added in order to 0. */
enum { SLICE = 32 };

/* Sizes and weights. Padding is zero; it is multiplied and added as values are. */
struct mamba_weights {
    int d, r, e, n_state, n_conv, n_dt;
    int rk, ep, mix_ld, x_ld; /* r and e rounded up to SLICE; 2e and n_dt + 2 n_state rounded up to 64 */
    int xp, zp;               /* floats from a row of (dt, B, C), and of (a, z), to the next: multiples of 4 */
    int sp;                   /* n_state rounded up to what the lanes of a channel hold */
    float eps;
    double offset;
    const float *norm, *mix_t, *x_t; /* [rk], [rk, mix_ld], [ep, x_ld] */
    const float *conv, *conv_bias;   /* [n_conv, e], [e] */
    const float *dt, *dt_bias;       /* [n_dt, e], [e] */
    const float *rate, *skip;        /* [e, n_state], [e] */
    const double *of_u, *of_y;       /* [r], [e] */
};

struct kern_mamba {
    struct mamba_weights w;
    struct kern_matrix *in;
    struct kern_matrix *mix, *x; /* f32 mode: mixer.in_proj, x_proj */
    struct dev_bytes *memory;
    size_t bytes;
};

/* The step as the kernels see it. */
struct mamba_step {
    struct rows all;
    const struct kern_run *runs;
    const int *run_of;
    const struct kern_save *saves;
    float *states;
    int n_runs, n_routers, router, state_floats;
    __device__ __forceinline__ float *state(int slot) const
    {
        return slot < 0 ? NULL : states + ((size_t)slot * n_routers + router) * state_floats;
    }
};

/* Where a row's decision goes; the set of rows that get one. */
struct mamba_end {
    struct decisions to;
    unsigned char *bad;
    struct rows wanted;
};

/* What is kept of every row between the kernels; n is rounded up to 4. The scan takes four rows with one load, counted from row 0 of the step, and a
 * block of it takes 2^ch_bits channels: what it reads and writes of a row range is one piece of memory. It reads whole tiles, so behind delta and bc
 * there is memory for SCAN_BEYOND rows more, of any values. */
enum { SCAN_THREADS = 128, SCAN_BEYOND = 64 };
struct mamba_rows {
    int n, ch_bits;
    float *u;     /* [n, r] */
    float *az;    /* [n, zp] of a only the rows that a state ends with may be there */
    float *c;     /* [n, ep] */
    float *x;     /* [n, xp] dt, B, C; NULL where mamba_tile.cu keeps it to itself */
    float *delta; /* [ep / 2^ch_bits, n / 4, 2^ch_bits, 2, 4] D, D c */
    float *bc;    /* [n / 4, 2, sp, 4] B, C; zero beyond n_state */
    float *y;     /* [ep / 2^ch_bits, n, 2^ch_bits] sum over the states of S C */
    /* Channel e of rows 4 q .. */
    __device__ __forceinline__ float *delta_at(size_t q, int e) const
    {
        return delta + (((((size_t)(e >> ch_bits) * (n / 4) + q) << ch_bits) + (e & ((1 << ch_bits) - 1))) * 8);
    }
    __device__ __forceinline__ float *y_at(size_t r, int e) const
    {
        return y + ((((size_t)(e >> ch_bits) * n + r) << ch_bits) + (e & ((1 << ch_bits) - 1)));
    }
};

/* ---- one row's arithmetic ---- */

/* 1 / sqrt(mean(u^2) + eps), by a warp from its lanes' shares of the sum of squares; each lane gets it. */
__device__ __forceinline__ float mamba_scale_of(float sum, int r, float eps)
{
    return 1.0f / sqrtf(warp_sum(sum) / (float)r + eps);
}

__device__ __forceinline__ float mamba_norm_scale(const float *u, int r, float eps)
{
    float sum = 0;
    for (int j = threadIdx.x % 32; j < r; j += 32)
        sum = fmaf(u[j], u[j], sum);
    return mamba_scale_of(sum, r, eps);
}

/* 2^x by the hardware: within two units of the last place, and what is below 2^-126 is 0. */
__device__ __forceinline__ float power_of_two(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* log(1 + e^y) within a few units of the last place: max(y, 0) + log(1 + t), t = e^-|y|, and log(1 + t) = 2 artanh(t / (2 + t)) by its series. */
__device__ __forceinline__ float softplus(float y)
{
    const float log2_e = 1.442695041f, rest = 1.925963033e-8f; /* their sum is log2 of e to 48 bits */
    float x = -fabsf(y), t = power_of_two(fmaf(x, log2_e, x * rest)), s = __fdividef(t, 2.0f + t), q = s * s;
    float p = fmaf(q, fmaf(q, fmaf(q, fmaf(q, fmaf(q, 1.0f / 13, 1.0f / 11), 1.0f / 9), 1.0f / 7), 1.0f / 5), 1.0f / 3);
    return fmaxf(y, 0.0f) + fmaf(2 * s * q, p, 2 * s);
}

/* S after a row, from S before it. */
__device__ __forceinline__ float mamba_next(float s, float delta, float rate, float input, float b)
{
    return fmaf(power_of_two(delta * rate), s, input * b);
}

/* Slice s of column c: x is a row of inputs. */
__device__ __forceinline__ float mamba_slice(const float *x, const float *w_t, int ld, int s, int c)
{
    float acc = 0;
#pragma unroll
    for (int i = 0; i < SLICE; i++)
        acc = fmaf(x[s * SLICE + i], w_t[(size_t)(s * SLICE + i) * ld + c], acc);
    return acc;
}

/* a of channel e, `back` rows before a row that is row `pos` of its run and has its a at `a`, ld floats after that of the row before; what is older
 * than the run comes from `tail`, of the run's first state (NULL: zeros). */
__device__ __forceinline__ float mamba_a(const struct mamba_weights &w, const float *a, int ld, const float *tail, int pos, int back, int e)
{
    if (back <= pos)
        return a[e - (ptrdiff_t)back * ld];
    return tail ? tail[(size_t)(w.n_conv - 1 - (back - pos)) * w.e + e] : 0.0f;
}

/* c of channel e of that row. */
__device__ __forceinline__ float mamba_c(const struct mamba_weights &w, const float *a, int ld, const float *tail, int pos, int e)
{
    float sum = w.conv_bias[e];
#pragma unroll 4
    for (int j = 0; j < w.n_conv; j++)
        sum = fmaf(w.conv[j * w.e + e], mamba_a(w, a, ld, tail, pos, w.n_conv - 1 - j, e), sum);
    return silu_near(sum);
}

/* D of channel e of N rows of (dt, B, C), ldx apart. */
template <int N> __device__ __forceinline__ void mamba_delta(const struct mamba_weights &w, const float *x, int ldx, int e, float (&d)[N])
{
#pragma unroll
    for (int t = 0; t < N; t++)
        d[t] = w.dt_bias[e];
#pragma unroll 4
    for (int j = 0; j < w.n_dt; j++) {
        float k = w.dt[j * w.e + e];
#pragma unroll
        for (int t = 0; t < N; t++)
            d[t] = fmaf(k, x[t * ldx + j], d[t]);
    }
#pragma unroll
    for (int t = 0; t < N; t++)
        d[t] = softplus(d[t]);
}

/* y of a channel, gated. */
__device__ __forceinline__ float mamba_y(float sum, float skip, float c, float z)
{
    return fmaf(skip, c, sum) * silu_near(z);
}

/* A lane's share of the margin; `y` gives y of a channel. The sum over the warp's lanes is the margin. */
template <typename F> __device__ __forceinline__ double mamba_margin(const struct mamba_weights &w, const float *u, F y)
{
    double z = threadIdx.x % 32 == 0 ? w.offset : 0;
    for (int j = threadIdx.x % 32; j < w.r; j += 32)
        z = fma(w.of_u[j], (double)u[j], z);
    for (int e = threadIdx.x % 32; e < w.e; e += 32)
        z = fma(w.of_y[e], (double)y(e), z);
    for (int d = 16; d; d >>= 1)
        z += __shfl_xor_sync(~0u, z, d);
    return z;
}

__device__ __forceinline__ bool mamba_wanted(const struct rows &n, int r)
{
    int low = 0, high = rows_count(n);
    if (!n.idx)
        return r < high;
    while (low < high) {
        int middle = (low + high) / 2;
        if (i32_of(n.idx)[middle] < r)
            low = middle + 1;
        else
            high = middle;
    }
    return low < rows_count(n) && i32_of(n.idx)[low] == r;
}

/* By one thread. */
__device__ __forceinline__ void mamba_decide(const struct mamba_end &end, int r, double margin)
{
    if (end.bad)
        end.bad[r] = margin - margin != 0;
    if (mamba_wanted(end.wanted, r))
        decide_margin(end.to, r, margin);
}

/* How many lanes hold the states of a channel, and how many states each: state i * lanes + l is in lane l. The sum over the states takes a lane's first,
 * then the lanes' in a tree. */
static inline int mamba_lanes(int n_state)
{
    return n_state <= 4 ? 4 : n_state <= 8 ? 8 : n_state <= 16 ? 16 : 32;
}
static inline int mamba_states_a_lane(int n_state)
{
    return n_state <= 32 ? 1 : n_state <= 64 ? 2 : 4;
}

/* ---- kernels ---- */
int mamba_f32(struct cuda_ctx *c, const struct kern_mamba *m, const struct dev_f32 *x, const struct mamba_step &s,
              const struct mamba_end &end);
/* Does what precedes the scan fit into one kernel? */
bool mamba_tile_fits(const struct cuda_ctx *c, const struct mamba_weights &w);
int mamba_tile_before(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b);
int mamba_rows_before(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b);
int mamba_scan(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b);
int mamba_rows_after(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b,
                     const struct mamba_end &end);

/* u of few rows in parts, one a block of 64 columns of x and term of the weights, in the order in which they are added. */
enum { FEW_ROWS = 64 };
struct mamba_parts_of_u {
    const float *part;    /* [blocks, FEW_ROWS, ld] NULL: u is whole */
    const float *unscale; /* [blocks, FEW_ROWS] the factor of a part */
    int blocks, ld;
    float w_unscale; /* of the sum */
    const float *bias;
};
bool mamba_few_fits(const struct kern_mamba *m, const struct mamba_step &s);
int mamba_few(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const float *u, const struct mamba_parts_of_u &p,
              const struct mamba_end &end);
/* Level wgmma, x as tensor_map_fits. scratch: [blocks * FEW_ROWS * (ld + 1)] floats; mamba_parts_floats tells how many. */
size_t mamba_parts_floats(const struct kern_matrix *in);
int mamba_parts_sm90(struct cuda_ctx *c, const struct kern_mamba *m, const float *x, int n, float *scratch, struct mamba_parts_of_u *ret);
