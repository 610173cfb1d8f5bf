/* The Mamba router before its scan, in one kernel: a block takes 16 TM rows from u to (D, D c) and (B, C), and keeps what is between in shared memory.
 *
 * The convolution looks n_conv - 1 rows back: a of these rows is computed by each block for itself. a goes to memory only where store_tails of the scan
 * reads it. */
#include "kernels/cuda/mamba_rows.cuh"
#include "kernels/cuda/mma.cuh"

enum { THREADS = 256, LANE_COLUMNS = 4, COLUMNS = 128, LONG_TM = 4, SHORT_TM = 1, SHARED_UNASKED = 48 << 10 };

struct tile_args {
    struct mamba_weights w;
    struct mamba_step s;
    struct mamba_rows b;
};

/* A row of the tile: where it is in its run, the run's first state, and whether a state ends with its a. */
struct tile_row {
    int pos, slot, keep;
};

/* Shared memory. Rows of u and of a begin `back` rows before the tile; c takes the place of u, and x that of a. */
struct tile_smem {
    float *u; /* [back + rows, ldu] normed, zero beyond r */
    float *c; /* [rows, ldc] */
    float *a; /* [back + rows, ep] */
    float *x; /* [rows, xp] */
    struct tile_row *row;
    int back, ldu, ldc;
};

static __host__ __device__ __forceinline__ int larger(int a, int b)
{
    return a > b ? a : b;
}

/* Returns the bytes taken. */
static __host__ __device__ __forceinline__ size_t divide(struct tile_smem *m, const struct mamba_weights &w, float *p, int rows)
{
    m->back = w.n_conv - 1;
    m->ldu = w.rk + 4;
    m->ldc = w.ep + 4;
    int all = m->back + rows;
    size_t u_floats = larger(all * m->ldu, rows * m->ldc), a_floats = larger(all * w.ep, rows * w.xp);
    m->u = m->c = p;
    m->a = m->x = p + u_floats;
    m->row = (struct tile_row *)(p + u_floats + a_floats);
    return (u_floats + a_floats) * sizeof(float) + rows * sizeof(struct tile_row);
}

/* u of the tile and of the rows before it; zeros for rows that are not there. */
template <int ROWS> __device__ __forceinline__ void load_u(const struct tile_args &a, const struct tile_smem &m, int r0, int n)
{
    int rows = m.back + ROWS, first = r0 - m.back, wide = a.w.rk / 4;
    if (a.w.r % 4 == 0)
        for (int i = threadIdx.x; i < rows * wide; i += THREADS) {
            int l = i / wide, j = i % wide * 4, r = first + l;
            bool there = r >= 0 && r < n && j < a.w.r;
            copy16(smem_address(m.u + l * m.ldu + j), there ? a.b.u + (size_t)r * a.w.r + j : a.b.u, there);
        }
    else
        for (int i = threadIdx.x; i < rows * a.w.rk; i += THREADS) {
            int l = i / a.w.rk, j = i % a.w.rk, r = first + l;
            m.u[l * m.ldu + j] = r >= 0 && r < n && j < a.w.r ? a.b.u[(size_t)r * a.w.r + j] : 0;
        }
    copy_commit();
}

/* Brings weights into the L1 cache, with a copy from each sector of 32 bytes: all warps read them at the same time and once, and would wait for piece
 * after piece. The copies themselves are not used; they go to `any`, [THREADS]. */
__device__ __forceinline__ void warm(float *any, const float *w, int n)
{
    for (int i = threadIdx.x * 8; i < n; i += THREADS * 8)
        copy4_cached(smem_address(any + threadIdx.x), w + i);
}

/* Is row r among the n_conv - 1 that end with `last`? */
__device__ __forceinline__ bool ends_with(const struct mamba_weights &w, int r, int last)
{
    return r <= last && last - r < w.n_conv - 1;
}

__device__ __forceinline__ struct tile_row describe(const struct tile_args &a, int r)
{
    struct kern_run run = a.s.runs[a.s.run_of[r]];
    bool keep = ends_with(a.w, r, run.row0 + run.n - 1);
    for (int i = 0; i < run.n_save && !keep; i++)
        keep = ends_with(a.w, r, a.s.saves[run.save0 + i].row);
    return {r - run.row0, run.state_in, keep};
}

/* A warp a row, and some rows at once, so that they need not wait for each other. */
template <int ROWS> __device__ __forceinline__ void norm_rows(const struct tile_args &a, const struct tile_smem &m)
{
    const int WARPS = THREADS / 32, TOGETHER = 3;
    int rows = m.back + ROWS;
    for (int l0 = threadIdx.x / 32; l0 < rows; l0 += TOGETHER * WARPS) {
        float sum[TOGETHER] = {}, *u[TOGETHER];
#pragma unroll
        for (int t = 0; t < TOGETHER; t++)
            u[t] = m.u + min(l0 + t * WARPS, rows - 1) * m.ldu;
#pragma unroll 2
        for (int j = threadIdx.x % 32; j < a.w.r; j += 32)
#pragma unroll
            for (int t = 0; t < TOGETHER; t++)
                sum[t] = fmaf(u[t][j], u[t][j], sum[t]);
#pragma unroll
        for (int t = 0; t < TOGETHER; t++)
            sum[t] = mamba_scale_of(sum[t], a.w.r, a.w.eps);
#pragma unroll 2
        for (int j = threadIdx.x % 32; j < a.w.rk; j += 32) {
            float w = a.w.norm[j];
#pragma unroll
            for (int t = 0; t < TOGETHER; t++)
                if (l0 + t * WARPS < rows)
                    u[t][j] = u[t][j] * sum[t] * w;
        }
    }
}

/* Columns n0 .. of (a, z): a stays here, z goes to memory. Four columns may have some of both: they go both ways. */
template <int TM> __device__ __forceinline__ void mix_columns(const struct tile_args &a, const struct tile_smem &m, int n0, int r0, int n)
{
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16, c0 = n0 + tx * 4, half = n0 + 64 < a.w.mix_ld ? 64 : 0;
    float sum[TM][8] = {};
    for (int s = 0; s < a.w.rk / SLICE; s++)
        add_slice<TM, 8>(sum, m.u + (m.back + ty) * m.ldu + s * SLICE, m.ldu, a.w.mix_t + (size_t)s * SLICE * a.w.mix_ld + c0, a.w.mix_ld,
                         half);
#pragma unroll
    for (int t = 0; t < TM; t++) {
        int l = ty + 16 * t;
        bool keep = m.row[l].keep;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int c = c0 + h * 64;
            float4 v = four_sums(sum, t, h);
            if (c < a.w.e)
                *(float4 *)&m.a[(m.back + l) * a.w.ep + c] = v;
            if (c < a.w.zp && r0 + l < n && (keep || c + 4 > a.w.e))
                *(float4 *)&a.b.az[(size_t)(r0 + l) * a.w.zp + c] = v;
        }
    }
}

/* a of the rows before the tile that are of the first row's run. */
__device__ __forceinline__ void mix_back(const struct tile_args &a, const struct tile_smem &m)
{
    int n = m.row[0].pos < m.back ? m.row[0].pos : m.back;
    for (int i = threadIdx.x; i < n * a.w.e; i += THREADS) {
        int l = m.back - n + i / a.w.e, c = i % a.w.e;
        float sum = 0;
        for (int s = 0; s < a.w.rk / SLICE; s++)
            sum += mamba_slice(m.u + l * m.ldu, a.w.mix_t, a.w.mix_ld, s, c);
        m.a[l * a.w.ep + c] = sum;
    }
}

/* c of channel e of four rows, in the order of mamba_c; from: a of the row that is n_conv - 1 before the first, all being of one run. */
__device__ __forceinline__ void convolve_four(const struct mamba_weights &w, const float *from, int e, float (&c)[4])
{
#pragma unroll
    for (int t = 0; t < 4; t++)
        c[t] = w.conv_bias[e];
#pragma unroll 4
    for (int j = 0; j < w.n_conv; j++) {
        float k = w.conv[j * w.e + e];
#pragma unroll
        for (int t = 0; t < 4; t++)
            c[t] = fmaf(k, from[(j + t) * w.ep + e], c[t]);
    }
#pragma unroll
    for (int t = 0; t < 4; t++)
        c[t] = silu_near(c[t]);
}

/* A thread a channel of four rows: at once, or one by one where some look back beyond their run. */
template <int ROWS> __device__ __forceinline__ void convolve(const struct tile_args &a, const struct tile_smem &m, int r0, int n)
{
    for (int i = threadIdx.x; i < ROWS / 4 * a.w.ep; i += THREADS) {
        int l = i / a.w.ep * 4, e = i % a.w.ep;
        float c[4] = {};
        if (e < a.w.e && m.row[l].pos >= m.back && m.row[l + 3].pos == m.row[l].pos + 3)
            convolve_four(a.w, m.a + l * a.w.ep, e, c);
        else if (e < a.w.e)
#pragma unroll
            for (int t = 0; t < 4; t++)
                if (r0 + l + t < n)
                    c[t] = mamba_c(a.w, m.a + (m.back + l + t) * a.w.ep, a.w.ep, a.s.state(m.row[l + t].slot), m.row[l + t].pos, e);
#pragma unroll
        for (int t = 0; t < 4; t++) {
            m.c[(l + t) * m.ldc + e] = c[t];
            if (r0 + l + t < n)
                a.b.c[(size_t)(r0 + l + t) * a.w.ep + e] = c[t];
        }
    }
}

/* (dt, B, C): a thread takes four columns of TM rows. */
template <int TM> __device__ __forceinline__ void project(const struct tile_args &a, const struct tile_smem &m)
{
    int wide = a.w.xp / LANE_COLUMNS;
    for (int i = threadIdx.x; i < 16 * wide; i += THREADS) {
        int ty = i / wide, c = i % wide * LANE_COLUMNS;
        float sum[TM][LANE_COLUMNS] = {};
        for (int s = 0; s < a.w.ep / SLICE; s++)
            add_slice<TM, LANE_COLUMNS>(sum, m.c + ty * m.ldc + s * SLICE, m.ldc, a.w.x_t + (size_t)s * SLICE * a.w.x_ld + c, a.w.x_ld, 0);
#pragma unroll
        for (int t = 0; t < TM; t++)
            *(float4 *)&m.x[(ty + 16 * t) * a.w.xp + c] = four_sums(sum, t, 0);
    }
}

/* What the scan reads. */
__device__ __forceinline__ void put_rows(const struct tile_args &a, const struct tile_smem &m, int r0, int n)
{
    int fours = (n + 3) / 4;
    for (int i = threadIdx.x; i < fours * a.w.ep; i += THREADS) {
        int q = i / a.w.ep, e = i % a.w.ep;
        put_delta(a.w, a.b.delta_at(r0 / 4 + q, e), m.x + q * 4 * a.w.xp, a.w.xp, m.c + q * 4 * m.ldc, m.ldc, n - q * 4, e);
    }
    for (int i = threadIdx.x; i < fours * 2 * a.w.sp; i += THREADS) {
        int q = i / (2 * a.w.sp);
        put_bc(a.w, a.b.bc + (size_t)(r0 / 4 + q) * a.w.sp * 8, m.x + q * 4 * a.w.xp, a.w.xp, n - q * 4, i % (2 * a.w.sp));
    }
}

template <int TM> __global__ static void __launch_bounds__(THREADS, 2) before_scan(const __grid_constant__ struct tile_args a)
{
    const int ROWS = 16 * TM;
    extern __shared__ __align__(16) float raw[];
    struct tile_smem m;
    int n = rows_count(a.s.all), r0 = blockIdx.x * ROWS;
    divide(&m, a.w, raw, ROWS);
    if (r0 >= n)
        return;
    warm(m.a, a.w.mix_t, a.w.rk * a.w.mix_ld);
    warm(m.a, a.w.x_t, a.w.ep * a.w.x_ld);
    load_u<ROWS>(a, m, r0, n);
    if (threadIdx.x < ROWS)
        m.row[threadIdx.x] = r0 + (int)threadIdx.x < n ? describe(a, r0 + threadIdx.x) : tile_row{0, -1, 0};
    copy_wait<0>();
    __syncthreads();
    norm_rows<ROWS>(a, m);
    __syncthreads();
    for (int n0 = 0; n0 < a.w.zp; n0 += COLUMNS)
        mix_columns<TM>(a, m, n0, r0, n);
    mix_back(a, m);
    __syncthreads();
    convolve<ROWS>(a, m, r0, n);
    __syncthreads();
    project<TM>(a, m);
    __syncthreads();
    put_rows(a, m, r0, n - r0 < ROWS ? n - r0 : ROWS);
}

static size_t smem_bytes(const struct mamba_weights &w, int rows)
{
    struct tile_smem unused;
    return divide(&unused, w, (float *)NULL, rows);
}

/* A block may have all of a multiprocessor's shared memory but 1 KiB. */
bool mamba_tile_fits(const struct cuda_ctx *c, const struct mamba_weights &w)
{
    return w.r <= COLUMNS * 4 && w.e <= COLUMNS * 4 && smem_bytes(w, 16 * LONG_TM) <= (size_t)c->smem_bytes - 1024;
}

template <int TM> static int start(struct cuda_ctx *c, const struct tile_args &a)
{
    int bytes = (int)smem_bytes(a.w, 16 * TM), r = 0;
    if (bytes > SHARED_UNASKED)
        r = cuda_allow_shared(c, (const void *)before_scan<TM>, bytes);
    if (r < 0)
        return r;
    before_scan<TM><<<div_up(a.s.all.n_max, 16 * TM), THREADS, bytes, c->stream>>>(a);
    return launched(&c->k, "mamba before its scan");
}

/* Short tiles where long ones would leave more than half of the device without any. */
int mamba_tile_before(struct cuda_ctx *c, const struct kern_mamba *m, const struct mamba_step &s, const struct mamba_rows &b)
{
    struct tile_args a = {m->w, s, b};
    return div_up(s.all.n_max, 16 * LONG_TM) * 2 > c->n_sm ? start<LONG_TM>(c, a) : start<SHORT_TM>(c, a);
}
