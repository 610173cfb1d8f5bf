/* The float32-accurate matmul of few rows on Hopper, and the router that decides in its end and may place the rows there too. There are few tiles then, and what
 * counts is how long one takes. So the blocks of 64 columns of k, which matmul_accurate_sm90.cu (it has the idea) takes one after another, are shared out to the
 * warpgroups of a thread block, four at a time: a wave. Only their sums are added in order. The products and the order are the same: the same bits.
 *
 * The weights are wgmma's 64 rows and x its columns, so that 16 rows of x make a tile. A warpgroup splits its next block of x while its product runs, and all
 * threads add a wave while the next one's products run: so terms of x and parts lie in shared memory twice. */
#include "kernels/cuda/accurate_sm90.cuh"
#include "kernels/cuda/matmul_few_sm90.cuh"
#include "kernels/cuda/route.cuh"

enum {
    ROWS = (int)ACCURATE_FEW_TILE,
    WGS = 4,
    COMPUTING = 128 * WGS,
    PLACING = 128,
    THREADS = COMPUTING + 32, /* one of the last warp brings the weights in */
    W_BYTES = (int)PART * (int)TILE_K_BYTES,
    TERM_BYTES = ROWS * (int)TILE_K_BYTES,
    TERMS_BYTES = 2 * 2 * TERM_BYTES, /* of a warpgroup: twice both terms, the larger first */
    STAGES_MAX = 16,
    DEPTH = 4, /* blocks of x that a warpgroup has asked for */
    OUT_LD = (int)PART + 8,
    SYNC_WG = 1, /* named barriers: of warpgroup g, and of all that compute */
    SYNC_ALL = SYNC_WG + WGS
};
static_assert((int)ACCURATE_FEW_ROWS <= PLACING, "a thread a row");
static_assert(ROWS == 16 && DEPTH % 2 == 0, "16 x 8 threads split a block of x; the halves are told by the place in DEPTH");

struct wave_args {
    struct tile_args a;
    const float *x;
    int ldx;
    int blocks, term_blocks;  /* of the chain, and of one term: two terms at most, the smaller first */
    int stages;               /* of the ring of weights; all of k where that fits, and WGS at least */
    float unscale;            /* of the weights */
    struct router_end router; /* route NULL: the products are written */
    struct router_place place;
};

struct wave_shared {
    float part[2][WGS][(int)PART * (int)ROWS]; /* at part_at */
    float unscale[2][WGS][ROWS];               /* of x's rows in these 64 columns */
    float out[ROWS * OUT_LD];                  /* silu of the products, or what is written of them */
    float bias[PART];                          /* of the columns */
    double w[PART], w_bias;                    /* the router's: of a column in z0 - z1, and what z0 - z1 starts with */
    uint64_t full[STAGES_MAX], empty[STAGES_MAX];
    float threshold;
    int last;
};

static int smem_bytes(int stages)
{
    return (int)sizeof(struct wave_shared) + 1024 + WGS * TERMS_BYTES + stages * W_BYTES;
}

#if HAVE_SM90

/* One thread: the weights. As many blocks as the ring holds are asked for before x has been computed. */
__device__ static void feed(const CUtensorMap *mw, const struct wave_args &p, uint32_t weights, uint32_t full, uint32_t empty)
{
    int first = p.blocks < p.stages ? p.blocks : p.stages, n0 = blockIdx.x * PART;
    for (int i = 0; i < first; i++) {
        barrier_expect(full + i * 8, W_BYTES);
        tma_load(weights + i * W_BYTES, mw, i * TILE_K, n0, full + i * 8);
    }
    chain_wait();
    if (rows_count(p.a.out.rows) <=
        (int)blockIdx.y * ROWS) { /* nobody takes them; but they must have come before the memory is another's */
        for (int i = 0; i < first; i++)
            barrier_wait(full + i * 8, 0);
        return;
    }
    struct few_ring at(p.stages);
    at.phase = 1; /* the ring has been filled once */
    for (int i = first; i < p.blocks; i++, at.next()) {
        barrier_wait(empty + at.stage * 8, at.phase ^ 1);
        barrier_expect(full + at.stage * 8, W_BYTES);
        tma_load(weights + at.stage * W_BYTES, mw, i * TILE_K, n0, full + at.stage * 8);
    }
}

/* A thread's 8 of the 64 columns of a block, of one row of x. Rows beyond the set's are whatever lies there: they are not written. */
struct x_columns {
    float v[8];
    static __device__ __forceinline__ int first(const struct wave_args &p, int b)
    {
        return (b < p.term_blocks ? b : b - p.term_blocks) * TILE_K + threadIdx.x % 8 * 8;
    }
    /* Whole pieces of 16 bytes, which may go beyond k: split() clears what does. */
    __device__ __forceinline__ void load(const struct wave_args &p, int b)
    {
        int row = blockIdx.y * ROWS + threadIdx.x % 128 / 8, c = first(p, b);
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
            float4 four = make_float4(0, 0, 0, 0);
            if (b < p.blocks && row < p.a.out.rows.n_max && c + i < p.a.k)
                four = __ldcg((const float4 *)(p.x + (size_t)row * p.ldx + c + i));
            v[i] = four.x;
            v[i + 1] = four.y;
            v[i + 2] = four.z;
            v[i + 3] = four.w;
        }
    }
    /* Writes the terms as x_terms::split makes them; returns the row's unscale. */
    __device__ __forceinline__ float split(const struct wave_args &p, int b, char *terms)
    {
        int row = threadIdx.x % 128 / 8, left = p.a.k - first(p, b);
        float top = 0, unscale;
        uint32_t larger[4], smaller[4];
        if (left < 8)
#pragma unroll
            for (int i = 0; i < 8; i++)
                v[i] = i < left ? v[i] : 0;
#pragma unroll
        for (int i = 0; i < 8; i++)
            top = fmaxf(top, fabsf(v[i]));
#pragma unroll
        for (int i = 1; i < 8; i *= 2)
            top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
        float scale = half_scale(top, &unscale);
#pragma unroll
        for (int i = 0; i < 4; i++)
            split_pair(make_float2(v[i * 2] * scale, v[i * 2 + 1] * scale), &larger[i], &smaller[i]);
        char *at = terms + row * TILE_K_BYTES + (threadIdx.x % 8 ^ row % 8) * 16;
        *(uint4 *)at = make_uint4(larger[0], larger[1], larger[2], larger[3]);
        *(uint4 *)(at + TERM_BYTES) = make_uint4(smaller[0], smaller[1], smaller[2], smaller[3]);
        return unscale;
    }
};

/* Starts part = one term of PART columns of the weights times x, as multiply_terms. */
template <bool BOTH> __device__ __forceinline__ void multiply_rows(float (&part)[ROWS / 2], uint32_t w, uint32_t x)
{
    uint64_t dw = tile_k_major(w), larger = tile_k_major(x), smaller = tile_k_major(x + TERM_BYTES);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if constexpr (BOTH)
            wgmma<__half, ROWS>::ss(part, dw + i * 2, smaller + i * 2, i > 0);
        wgmma<__half, ROWS>::ss(part, dw + i * 2, larger + i * 2, BOTH || i > 0);
    }
    wgmma_commit();
}

/* The same of a block of the smaller term of the weights, if `small`, or of the larger. Of two terms the product is waited for: what comes of two branches cannot be
 * under way. */
template <int TERMS> __device__ __forceinline__ void multiply_block(float (&part)[ROWS / 2], uint32_t w, uint32_t x, bool small)
{
    if constexpr (TERMS == 1) {
        multiply_rows<true>(part, w, x);
    } else if (small) {
        multiply_rows<false>(part, w, x);
        wgmma_wait<0>();
    } else {
        multiply_rows<true>(part, w, x);
        wgmma_wait<0>();
    }
}

/* Column c, row r of a part: so lanes of 4 columns and 8 rows, two rows each, meet no bank twice. */
__device__ __forceinline__ int part_at(int c, int r)
{
    return c * ROWS + (r ^ (c & 2) * 4);
}

/* The product that was waited for, and its rows' unscale. */
__device__ __forceinline__ void store_part(struct wave_shared *s, int half, float (&part)[ROWS / 2], float unscale)
{
    int g = threadIdx.x / 128, lane = threadIdx.x % 32, c = threadIdx.x % 128 / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < ROWS / 2; i++)
        asm volatile("" : "+f"(part[i])::"memory");
#pragma unroll
    for (int i = 0; i < ROWS / 2; i += 2)
        *(float2 *)&s->part[half][g][part_at(c + i / 2 % 2 * 8, i / 4 * 8 + lane % 4 * 2)] = make_float2(part[i], part[i + 1]);
    if (threadIdx.x % 8 == 0)
        s->unscale[half][g][threadIdx.x % 128 / 8] = unscale;
}

/* A thread's column of the part and the first of its two rows, as it adds them. */
struct wave_element {
    int c, r;
    __device__ __forceinline__ wave_element()
        : c(threadIdx.x / 32 % 8 * 8 + threadIdx.x % 32 / 4), r(threadIdx.x / 256 * 8 + threadIdx.x % 4 * 2)
    {
    }
};

/* Adds the n parts of a wave in order. */
__device__ __forceinline__ void add_wave(float2 *acc, const struct wave_shared *s, int half, int n, struct wave_element e)
{
#pragma unroll
    for (int g = 0; g < WGS; g++)
        if (g < n) {
            float2 part = *(const float2 *)&s->part[half][g][part_at(e.c, e.r)], unscale = *(const float2 *)&s->unscale[half][g][e.r];
            acc->x = fmaf(part.x, unscale.x, acc->x);
            acc->y = fmaf(part.y, unscale.y, acc->y);
        }
}

struct wave_smem {
    struct wave_shared *s;
    char *terms; /* of the warpgroup */
    uint32_t weights, full, empty;
};

/* The thread's two sums; x: its columns of the first DEPTH blocks of the warpgroup. Wave w is in half w % 2 of what there is twice. A half of the terms is written
 * again once the whole warpgroup has waited for the product that read it (seen at the warpgroup's barrier before the next product), a half of the parts once
 * all have added it (seen at the barrier of all before the next wave is added). */
template <int TERMS>
__device__ static float2 sum_waves(const struct wave_args &p, const struct wave_smem &m, struct x_columns (&x)[DEPTH],
                                   struct wave_element e)
{
    int g = __shfl_sync(~0u, threadIdx.x / 128, 0), waves = (p.blocks + WGS - 1) / WGS, stage = g;
    uint32_t phase = 0, terms = smem_address(m.terms);
    float part[ROWS / 2], unscale[2];
    float2 acc = make_float2(0, 0);
    if (g < p.blocks)
        unscale[0] = x[0].split(p, g, m.terms);
    proxy_fence();
    x[0].load(p, g + WGS * DEPTH);
    for (int first = 0; first < waves; first += DEPTH)
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            int wave = first + i, b = wave * WGS + g, half = i % 2, next = (i + 1) % DEPTH;
            if (wave >= waves)
                break;
            named_sync(SYNC_WG + g, 128); /* the terms are there */
            if (b < p.blocks)
                barrier_wait(m.full + stage * 8, phase);
            multiply_block<TERMS>(part, m.weights + stage * W_BYTES, terms + half * 2 * TERM_BYTES, b < p.blocks - p.term_blocks);
            if (b + WGS < p.blocks) {
                unscale[half ^ 1] = x[next].split(p, b + WGS, m.terms + (half ^ 1) * 2 * TERM_BYTES);
                proxy_fence();
            }
            if (wave > 0) {
                named_sync(SYNC_ALL, COMPUTING); /* the last wave's parts are there */
                add_wave(&acc, m.s, half ^ 1, WGS, e);
            }
            x[next].load(p, b + WGS + WGS * DEPTH); /* behind the fence, which waits for what was asked for */
            wgmma_wait<0>();
            store_part(m.s, half, part, unscale[half]);
            if (threadIdx.x % 32 == 0 && b < p.blocks)
                barrier_arrive(m.empty + stage * 8);
            stage += WGS;
            if (stage >= p.stages) {
                stage -= p.stages;
                phase ^= 1;
            }
        }
    named_sync(SYNC_ALL, COMPUTING);
    add_wave(&acc, m.s, (waves - 1) % 2, p.blocks - (waves - 1) * WGS, e);
    return acc;
}

/* What the end needs of the weights: a thread a column, 0 beyond the last. */
__device__ __forceinline__ void load_columns(const struct wave_args &p, struct wave_shared *s)
{
    const struct router_end &e = p.router;
    int i = threadIdx.x, c = blockIdx.x * PART + i;
    if (i < PART)
        s->bias[i] = p.a.out.bias && c < p.a.rows ? p.a.out.bias[c] : 0;
    if (i < PART && e.to.route)
        s->w[i] = c < p.a.rows ? (double)e.w2[c] - (double)e.w2[p.a.rows + c] : 0;
    if (i == PART && e.to.route)
        s->w_bias = (double)e.b2[0] - e.b2[1];
}

/* The tile's part of the router's sums, added in the order of sum_columns: four lanes a row. */
__device__ __forceinline__ void sum_part(const struct wave_args &p, const struct wave_shared *s, int m)
{
    int row = threadIdx.x / 4, at = blockIdx.y * ROWS + row;
    double z = 0;
#pragma unroll
    for (int t = 0; t < PART / 8; t++) {
        int c = t * 8 + threadIdx.x % 4 * 2;
        float2 h = *(const float2 *)&s->out[row * OUT_LD + c];
        z = fma((double)h.x, s->w[c], z);
        z = fma((double)h.y, s->w[c + 1], z);
    }
    z += __shfl_xor_sync(~0u, z, 1);
    z += __shfl_xor_sync(~0u, z, 2);
    if (threadIdx.x % 4 == 0 && at < m)
        p.router.parts[(size_t)blockIdx.x * p.a.out.rows.n_max + at] = z;
}

/* How many blocks came here before; what they wrote before their barrier is seen behind this one's. */
__device__ __forceinline__ int arrive(int *arrived)
{
    int before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(arrived) : "memory");
    return before;
}

/* decide_row of a warp: a lane a part. */
__device__ __forceinline__ void decide_by_warp(const struct router_end &e, const struct wave_shared *s, int n_max, int row, int step_row)
{
    int lane = threadIdx.x % 32, n_parts = gridDim.x;
    double z = s->w_bias;
    for (int first = 0; first < n_parts; first += 32) {
        double part = first + lane < n_parts ? __ldcg(&e.parts[(size_t)(first + lane) * n_max + row]) : 0;
        int n = n_parts - first < 32 ? n_parts - first : 32;
        for (int t = 0; t < n; t++)
            z += __shfl_sync(~0u, part, t);
    }
    struct decisions to = e.to;
    if (to.threshold)
        to.threshold = &s->threshold;
    if (lane == 0)
        decide_margin(to, step_row, z);
}

/* The four warps that place rows. */
struct sync_placing {
    __device__ __forceinline__ void operator()() const { named_sync(SYNC_WG, PLACING); }
};

/* The last tile to decide its rows, of m, places all. What others decided is seen behind its arrival. */
__device__ __forceinline__ void place_decided(const struct router_place &p, struct wave_shared *s, int m)
{
    named_sync(SYNC_ALL, COMPUTING);
    if (threadIdx.x == 0)
        s->last = arrive(p.decided) == (m + ROWS - 1) / ROWS - 1;
    named_sync(SYNC_ALL, COMPUTING);
    if (!s->last)
        return;
    if (threadIdx.x < PLACING)
        place_all<PLACING>(p.a, m, (struct place_shared<PLACING> *)s->part, sync_placing());
    if (threadIdx.x == 0)
        *p.decided = 0;
}

/* The last tile to bring its part of these rows decides them. */
__device__ static void decide_tile(const struct wave_args &p, struct wave_shared *s, int m, int row, int step_row)
{
    int *arrived = &p.router.arrived[blockIdx.y];
    if (threadIdx.x < ROWS * 4)
        sum_part(p, s, m);
    named_sync(SYNC_ALL, COMPUTING);
    if (threadIdx.x == 0)
        s->last = arrive(arrived) == (int)gridDim.x - 1;
    named_sync(SYNC_ALL, COMPUTING);
    if (!s->last)
        return;
    if (row < m)
        decide_by_warp(p.router, s, p.a.out.rows.n_max, row, step_row);
    if (threadIdx.x == 0)
        *arrived = 0;
    if (p.place.a.run_of)
        place_decided(p.place, s, m);
}

/* A warp a row. */
__device__ __forceinline__ void write_row(const struct wave_args &p, const struct wave_shared *s, int step_row)
{
    const struct matmul_out &o = p.a.out;
    int row = threadIdx.x / 32, n0 = blockIdx.x * PART;
    float *y = (float *)o.y + (size_t)step_row * o.ldy + n0;
    for (int c = threadIdx.x % 32; c < PART && n0 + c < o.n; c += 32)
        y[c] = s->out[row * OUT_LD + c];
}

template <int TERMS> __device__ static void compute(const struct wave_args &p, const struct wave_smem &smem)
{
    const struct matmul_out &o = p.a.out;
    struct wave_shared *s = smem.s;
    struct wave_element e;
    struct x_columns x[DEPTH];
    int row = blockIdx.y * ROWS + threadIdx.x / 32; /* the warp's, of what is written */
    load_columns(p, s);
    chain_wait();
#pragma unroll
    for (int i = 0; i < DEPTH; i++)
        x[i].load(p, threadIdx.x / 128 + i * WGS);
    int m = rows_count(o.rows);
    if (m <= (int)blockIdx.y * ROWS)
        return;
    int step_row = row < m ? row_at(o.rows, row) : 0;
    if (threadIdx.x == 0 && p.router.to.route && p.router.to.threshold)
        s->threshold = *p.router.to.threshold;
    float2 acc = sum_waves<TERMS>(p, smem, x, e);
    float bias = s->bias[e.c], *out = &s->out[e.r * OUT_LD + e.c];
    if (p.router.to.route) {
        out[0] = silu_near(fmaf(acc.x, p.unscale, bias));
        out[OUT_LD] = silu_near(fmaf(acc.y, p.unscale, bias));
    } else {
        out[0] = acc.x * p.unscale + bias;
        out[OUT_LD] = acc.y * p.unscale + bias;
    }
    named_sync(SYNC_ALL, COMPUTING);
    if (p.router.to.route)
        decide_tile(p, s, m, row, step_row);
    else if (row < m)
        write_row(p, s, step_row);
}

#endif

template <int TERMS>
__global__ static void __launch_bounds__(THREADS, 1)
    matmul_accurate_few(const __grid_constant__ CUtensorMap mw, const __grid_constant__ struct wave_args p)
{
#if HAVE_SM90
    extern __shared__ __align__(16) char raw[];
    struct wave_shared *s = (struct wave_shared *)raw;
    uint32_t terms = (smem_address(s + 1) + 1023) & ~1023u, weights = terms + WGS * TERMS_BYTES;
    uint32_t full = smem_address(s->full), empty = smem_address(s->empty);
    chain_start_next();
    if (threadIdx.x == COMPUTING) {
        for (int i = 0; i < p.stages; i++) {
            barrier_init(full + i * 8, 1);
            barrier_init(empty + i * 8, 4); /* a lane of each warp of the warpgroup */
        }
        barrier_init_fence();
    }
    __syncthreads();
    if (threadIdx.x == COMPUTING)
        feed(&mw, p, weights, full, empty);
    else if (threadIdx.x < COMPUTING)
        compute<TERMS>(p, {s, raw + (terms - smem_address(raw)) + threadIdx.x / 128 * TERMS_BYTES, weights, full, empty});
#endif
}

/* Where its blocks run all at once. */
bool matmul_accurate_few_fits(const struct cuda_ctx *c, const struct kern_matrix *w, const struct matmul_out *out)
{
    int m = out->rows.n_max;
    return out->end == END_F32 && m <= ACCURATE_FEW_ROWS && div_up(w->rows, PART) * div_up(m, ROWS) <= c->n_sm;
}

int matmul_accurate_few_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                             const struct router_end *router, const struct router_place *place)
{
    int term_blocks = w->term_ld / TILE_K, blocks = w->n_terms * term_blocks, stages = blocks < STAGES_MAX ? blocks : STAGES_MAX;
    auto kernel = w->n_terms == 1 ? matmul_accurate_few<1> : matmul_accurate_few<2>;
    stages = stages < WGS ? WGS : stages;
    int r = cuda_allow_shared(c, (const void *)kernel, smem_bytes(STAGES_MAX));
    if (r < 0)
        return r;
    struct wave_args p = {{w->k, w->rows, *out}, (const float *)in->x, in->ldx, blocks, term_blocks, stages, w->term_unscale, *router};
    if (place)
        p.place = *place;
    chain_launch(c, kernel, dim3(div_up(w->rows, PART), div_up(out->rows.n_max, ROWS)), THREADS, smem_bytes(stages), w->box64, p);
    return launched(&c->k, "matmul_accurate_few_sm90");
}
