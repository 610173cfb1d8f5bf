/* Attention in float32 as the class portable-1 defines it (kernels/cpu/attention.c is its plain form): blocks of 64 keys aligned to the key's index,
 * the sum of weights in 16 lanes, everything else one chain an element.
 *
 * Many rows: a block takes a tile of 64 packed rows (attention.cuh) of one KV head. Thread (ty, tx) of 16 x 16 has rows 4 ty .. 4 ty + 3; of a block's
 * keys tx, tx + 16, tx + 32, tx + 48, so that it is lane tx of its rows' sums; of V columns 64 g + 4 tx .. + 3. Few rows: a warp a row and head. */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/lanes.cuh"
#include <math_constants.h>

enum { KEYS = 64, ROWS = 64, THREADS = 256, MAX_HD = 256, WARPS = 4, P_LD = ROWS + 4 };

/* ---- tiles ---- */

/* Shared memory. K's key j lies at column j % 16 * 4 + j / 16, so that a thread's four keys are neighbours. */
struct tile_smem {
    float *q; /* [hd][ROWS] */
    float *k; /* [hd][KEYS] */
    float *v; /* [KEYS][hd_pad] */
    float *p; /* [KEYS][P_LD] weights, [key][row] */
    int *bad; /* [KEYS] the key's V holds what is not finite */
};

static __host__ __device__ __forceinline__ int padded(int hd)
{
    return (hd + 63) / 64 * 64;
}

static __host__ __device__ __forceinline__ int divide(struct tile_smem *m, float *base, int hd)
{
    float *p = base;
    m->q = p;
    m->k = p += hd * ROWS;
    m->v = p += hd * KEYS;
    m->p = p += KEYS * padded(hd);
    m->bad = (int *)(p += KEYS * P_LD);
    return (int)(p + KEYS - base);
}

/* Row p of the tile: its step row and query head. */
struct packed_row {
    int r, head;
};
__device__ __forceinline__ struct packed_row packed_row_at(const struct attention_args &a, const struct attention_tile &t, int p,
                                                           int kv_head)
{
    int group = a.h / a.hk, i = t.first + p;
    return {a.sel[t.start + i / group], kv_head * group + i % group};
}

__device__ __forceinline__ void load_queries(const struct attention_args &a, const struct attention_tile &t, const struct tile_smem &m,
                                             int kv_head)
{
    for (int i = threadIdx.x; i < ROWS * a.hd / 4; i += THREADS) {
        int p = i % ROWS, d = i / ROWS * 4;
        float v[4] = {};
        if (p < t.rows) {
            struct packed_row row = packed_row_at(a, t, p, kv_head);
            load4(v, (const float *)a.qkv + ((size_t)row.r * (a.h + 2 * a.hk) + row.head) * a.hd + d);
        }
        for (int e = 0; e < 4; e++)
            m.q[(d + e) * ROWS + p] = v[e];
    }
}

/* Keys j0 .. of the run, zeros beyond the last. V's values that are not finite become 0, or they would reach rows that do not see them. */
__device__ __forceinline__ void load_keys(const struct attention_args &a, const struct attention_tile &t, const struct tile_smem &m,
                                          int kv_head, int j0)
{
    const int *slots = t.slots(a);
    int hd4 = a.hd / 4, pad = padded(a.hd);
    for (int i = threadIdx.x; i < KEYS * hd4; i += THREADS) { /* neighbouring threads have neighbouring keys, and so banks of their own */
        int j = i % KEYS, d = i / KEYS * 4, at = j % 16 * 4 + j / 16;
        float k[4] = {};
        if (j0 + j < t.n_keys)
            load4(k, (const float *)a.kv + ((size_t)slots[j0 + j] * 2 * a.hk + kv_head) * a.hd + d);
        for (int e = 0; e < 4; e++)
            m.k[(d + e) * KEYS + at] = k[e];
    }
    for (int i = threadIdx.x; i < KEYS * hd4; i += THREADS) {
        int j = i / hd4, d = i % hd4 * 4;
        float v[4] = {};
        if (j0 + j < t.n_keys)
            load4(v, (const float *)a.kv + (((size_t)slots[j0 + j] * 2 + 1) * a.hk + kv_head) * a.hd + d);
        for (int e = 0; e < 4; e++)
            if (v[e] - v[e] != 0) {
                v[e] = 0;
                m.bad[j] = 1;
            }
        store4(m.v + j * pad + d, v);
    }
}

/* s[row][c]: the thread's rows with its keys. */
__device__ __forceinline__ void score_keys(float (&s)[4][4], const struct tile_smem &m, int hd, int tx, int ty)
{
#pragma unroll 8
    for (int d = 0; d < hd; d++) {
        float q[4], k[4];
        load4(q, m.q + d * ROWS + ty * 4);
        load4(k, m.k + d * KEYS + tx * 4);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                s[i][c] = fmaf(q[i], k[c], s[i][c]);
    }
}

/* The thread's share of a row's softmax. */
struct row_state {
    float max, sum; /* sum: lane tx */
};

/* Scores of a row to weights; `seen` keys of the block count. Returns by what earlier sums shrink; 1: they stay. */
__device__ __forceinline__ float soften(struct row_state &st, float (&s)[4], int seen, float scale, const int *bad, int tx)
{
    float most = -CUDART_INF_F, keep = 1;
#pragma unroll
    for (int c = 0; c < 4; c++)
        if (tx + 16 * c < seen)
            most = s[c] > most ? s[c] : most;
    for (int half = 8; half; half /= 2) {
        float other = __shfl_xor_sync(~0u, most, half);
        most = other > most ? other : most;
    }
    if (most > st.max) {
        keep = st.max == -CUDART_INF_F ? 0 : portable_exp2((st.max - most) * scale);
        st.sum *= keep;
        st.max = most;
    }
    float base = -st.max * scale;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        int j = tx + 16 * c;
        s[c] = j < seen ? portable_exp2(fmaf(s[c], scale, base)) : 0;
        st.sum = st.sum + s[c];
        if (j < seen && bad[j])
            st.sum = CUDART_NAN_F;
    }
    return keep;
}

template <int GROUPS>
__device__ __forceinline__ void add_values(float (&acc)[4][4 * GROUPS], const struct tile_smem &m, int n, int pad, int tx, int ty)
{
    for (int j = 0; j < n; j++) {
        float p[4];
        load4(p, m.p + j * P_LD + ty * 4);
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            float v[4];
            load4(v, m.v + j * pad + g * 64 + tx * 4);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    acc[i][g * 4 + e] = fmaf(p[i], v[e], acc[i][g * 4 + e]);
        }
    }
}

/* GROUPS: of 64 columns of V. */
template <int GROUPS>
__global__ void __launch_bounds__(THREADS)
    attention_tile_rows(const __grid_constant__ struct attention_args a, struct attention_tiles tiles)
{
    extern __shared__ __align__(16) float raw[];
    struct tile_smem m;
    if ((int)blockIdx.x >= *tiles.count)
        return;
    struct attention_tile t = tiles.tile[blockIdx.x];
    int kv_head = blockIdx.y, tx = threadIdx.x % 16, ty = threadIdx.x / 16, pad = padded(a.hd);
    divide(&m, raw, a.hd);
    struct row_state st[4];
    int visible[4];
    float acc[4][4 * GROUPS] = {};
    load_queries(a, t, m, kv_head);
    for (int i = threadIdx.x; i < KEYS * (pad - a.hd); i += THREADS)
        m.v[i / (pad - a.hd) * pad + a.hd + i % (pad - a.hd)] = 0;
    for (int i = 0; i < 4; i++) {
        st[i] = {-CUDART_INF_F, 0};
        visible[i] = ty * 4 + i < t.rows ? a.visible[packed_row_at(a, t, ty * 4 + i, kv_head).r] : 0;
    }
    for (int j0 = 0; j0 < t.n_keys; j0 += KEYS) {
        float s[4][4] = {};
        __syncthreads(); /* everyone is done with the block before */
        if (threadIdx.x < KEYS)
            m.bad[threadIdx.x] = 0;
        __syncthreads();
        load_keys(a, t, m, kv_head, j0);
        __syncthreads();
        score_keys(s, m, a.hd, tx, ty);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float keep = soften(st[i], s[i], visible[i] - j0, a.scale, m.bad, tx);
            if (keep != 1)
#pragma unroll
                for (int e = 0; e < 4 * GROUPS; e++)
                    acc[i][e] *= keep;
        }
#pragma unroll
        for (int c = 0; c < 4; c++)
            *(float4 *)(m.p + (tx + 16 * c) * P_LD + ty * 4) = make_float4(s[0][c], s[1][c], s[2][c], s[3][c]);
        __syncthreads();
        add_values<GROUPS>(acc, m, min(KEYS, t.n_keys - j0), pad, tx, ty);
    }
    for (int i = 0; i < 4; i++) {
        float inverse = 1.0f / lanes_tree(st[i].sum);
        if (ty * 4 + i >= t.rows)
            continue;
        struct packed_row row = packed_row_at(a, t, ty * 4 + i, kv_head);
        float *out = (float *)a.out + ((size_t)row.r * a.h + row.head) * a.hd;
        for (int g = 0; g < GROUPS; g++) {
            float v[4];
            for (int e = 0; e < 4; e++)
                v[e] = acc[i][g * 4 + e] * inverse + 0.0f; /* no -0 */
            if (g * 64 + tx * 4 < a.hd)
                store4(out + g * 64 + tx * 4, v);
        }
    }
}

template <int GROUPS> static int start_tiles(struct cuda_ctx *c, const struct attention_args *a)
{
    struct attention_tiles tiles;
    struct tile_smem unused;
    int bytes = divide(&unused, (float *)NULL, a->hd) * (int)sizeof(float);
    int r = attention_list_tiles(c, a, ROWS, &tiles);
    if (r >= 0)
        r = cuda_allow_shared(c, (const void *)attention_tile_rows<GROUPS>, bytes);
    if (r < 0)
        return r;
    unsigned most = (unsigned)((size_t)a->n_max * (a->h / a->hk) / ROWS + a->n_runs + 1);
    attention_tile_rows<GROUPS><<<dim3(most, a->hk), THREADS, bytes, c->stream>>>(*a, tiles);
    return launched(&c->k, "attention_f32");
}

/* ---- rows ---- */

/* Blocks of 64 keys: a lane scores keys lane and lane + 32, then owns columns lane, lane + 32, .. of the result. Lanes 0 .. 15 and 16 .. 31 both hold the 16 lanes of
 * the sum. */
__global__ static void __launch_bounds__(WARPS * 32) attention_row(const __grid_constant__ struct attention_args a)
{
    __shared__ float q_of[WARPS][MAX_HD];
    int w = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y * WARPS + w;
    if (blockIdx.x >= *a.sel_n || head >= a.h)
        return;
    int r = a.sel[blockIdx.x], n = a.visible[r], hd = a.hd, kv_head = head / (a.h / a.hk);
    const struct kern_run run = a.runs[a.run_of[r]];
    const int *slots = a.tables + run.table_off + (int64_t)a.layer * run.table_cap;
    const float *q = (const float *)a.qkv + ((size_t)r * (a.h + 2 * a.hk) + head) * hd, *kv = (const float *)a.kv + (size_t)kv_head * hd;
    size_t slot_ld = (size_t)2 * a.hk * hd;
    float *qs = q_of[w], acc[MAX_HD / 32] = {}, max = -CUDART_INF_F, sum = 0;
    for (int i = lane; i < hd; i += 32)
        qs[i] = q[i];
    __syncwarp();
    for (int j0 = 0; j0 < n; j0 += KEYS) {
        int slot[2];
        float p[2] = {};
        for (int half = 0; half < 2; half++) {
            int j = j0 + half * 32 + lane;
            slot[half] = j < n ? slots[j] : slots[0];
            const float *key = kv + slot[half] * slot_ld;
            for (int i = 0; i < hd; i += 4) {
                float k[4];
                load4(k, key + i);
                for (int t = 0; t < 4; t++)
                    p[half] = fmaf(qs[i + t], k[t], p[half]);
            }
        }
        float most = -CUDART_INF_F;
        for (int half = 0; half < 2; half++)
            if (j0 + half * 32 + lane < n)
                most = p[half] > most ? p[half] : most;
        for (int d = 16; d; d /= 2) {
            float other = __shfl_xor_sync(~0u, most, d);
            most = other > most ? other : most;
        }
        if (most > max) {
            float keep = max == -CUDART_INF_F ? 0 : portable_exp2((max - most) * a.scale);
            sum *= keep;
#pragma unroll
            for (int c = 0; c < MAX_HD / 32; c++)
                acc[c] *= keep;
            max = most;
        }
        float base = -max * a.scale;
        for (int half = 0; half < 2; half++)
            p[half] = j0 + half * 32 + lane < n ? portable_exp2(fmaf(p[half], a.scale, base)) : 0;
        for (int half = 0; half < 2; half++)
            for (int part = 0; part < 2; part++)
                sum += __shfl_sync(~0u, p[half], part * 16 + lane % 16);
        for (int j = 0; j < KEYS && j0 + j < n; j++) {
            const float *v = kv + __shfl_sync(~0u, slot[j / 32], j % 32) * slot_ld + (size_t)a.hk * hd;
            float pj = __shfl_sync(~0u, p[j / 32], j % 32);
#pragma unroll
            for (int c = 0; c < MAX_HD / 32; c++)
                if (c * 32 + lane < hd)
                    acc[c] = fmaf(pj, v[c * 32 + lane], acc[c]);
        }
    }
    float inverse = 1.0f / lanes_tree(sum), *out = (float *)a.out + ((size_t)r * a.h + head) * hd;
#pragma unroll
    for (int c = 0; c < MAX_HD / 32; c++)
        if (c * 32 + lane < hd)
            out[c * 32 + lane] = acc[c] * inverse + 0.0f; /* no -0; what is not finite makes a row NaN later on */
}

/* Tiles pay where runs have more than a few rows. */
int attention_f32(struct cuda_ctx *c, const struct attention_args *given)
{
    struct attention_args a = *given;
    a.scale *= 1.44269504088896340736f; /* log2(e): a weight is 2^(scale * score) */
    if (a.n_max / a.n_runs >= 8)
        return a.hd <= 64 ? start_tiles<1>(c, &a) : a.hd <= 128 ? start_tiles<2>(c, &a) : start_tiles<4>(c, &a);
    attention_row<<<dim3(a.n_max, div_up(a.h, WARPS)), WARPS * 32, 0, c->stream>>>(a);
    return launched(&c->k, "attention_f32");
}
