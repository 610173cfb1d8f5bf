/* From step rows to packed ones and back, for the layers with a gate over all of it: a warp a row, four columns a lane where rows allow it. */
#include "kernels/cuda/common.cuh"

enum { WARPS = 8, AHEAD = 4 }; /* AHEAD: pieces of a row that a lane loads before it stores any */

/* N floats at p, a multiple of their size. */
template <int N> struct alignas(4 * N) piece {
    float v[N];
};

/* The warp's row in the set, or -1. */
__device__ __forceinline__ int warp_row(const struct rows &n)
{
    int i = blockIdx.x * WARPS + threadIdx.y;
    return i < rows_count(n) ? i : -1;
}

template <int N> __global__ void gather_rows(float *dst, const float *src, int d, struct rows n)
{
    chain_enter();
    int i = warp_row(n), pieces = d / N;
    if (i < 0)
        return;
    piece<N> *to = (piece<N> *)(dst + (size_t)i * d);
    const piece<N> *from = (const piece<N> *)(src + (size_t)row_at(n, i) * d);
    for (int j0 = threadIdx.x; j0 < pieces; j0 += 32 * AHEAD) {
        piece<N> v[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j0 + a * 32 < pieces)
                v[a] = from[j0 + a * 32];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j0 + a * 32 < pieces)
                to[j0 + a * 32] = v[a];
    }
}

template <int N, enum blend_mode MODE> __global__ void blend_rows(float *x, const float *y, const float *gate, int d, struct rows n)
{
    chain_enter();
    int i = warp_row(n), pieces = d / N;
    if (i < 0)
        return;
    int r = row_at(n, i);
    float g = gate[r];
    piece<N> *to = (piece<N> *)(x + (size_t)r * d);
    const piece<N> *from = (const piece<N> *)(y + (size_t)i * d);
    for (int j0 = threadIdx.x; j0 < pieces; j0 += 32 * AHEAD) {
        piece<N> old[AHEAD], v[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j0 + a * 32 < pieces) {
                old[a] = to[j0 + a * 32];
                v[a] = from[j0 + a * 32];
            }
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
            if (j0 + a * 32 < pieces) {
                for (int c = 0; c < N; c++)
                    v[a].v[c] = blended<MODE>(old[a].v[c], v[a].v[c], g);
                to[j0 + a * 32] = v[a];
            }
    }
}

static bool in_fours(const void *a, const void *b, int d)
{
    return d % 4 == 0 && (uintptr_t)a % 16 == 0 && (uintptr_t)b % 16 == 0;
}

static const dim3 block(32, WARPS);

static int gather_rows_cuda(struct kern_ctx *k, struct dev_f32 *dst, const struct dev_f32 *src, int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    auto kernel = in_fours(dst, src, d) ? gather_rows<4> : gather_rows<1>;
    chain_launch(ctx_of(k), kernel, div_up(n.n_max, WARPS), block, 0, f32_of(dst), f32_of(src), d, n);
    return launched(k, "gather_rows");
}

template <enum blend_mode MODE>
static void start_blend(struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *y, const struct dev_f32 *gate, int d, struct rows n)
{
    auto kernel = in_fours(x, y, d) ? blend_rows<4, MODE> : blend_rows<1, MODE>;
    chain_launch(ctx_of(k), kernel, div_up(n.n_max, WARPS), block, 0, f32_of(x), f32_of(y), f32_of(gate), d, n);
}

static int blend_cuda(struct kern_ctx *k, struct dev_f32 *x, const struct dev_f32 *y, const struct dev_f32 *gate, enum blend_mode mode,
                      int d, struct rows n)
{
    if (n.n_max == 0)
        return 0;
    if (mode == BLEND_ADD)
        start_blend<BLEND_ADD>(k, x, y, gate, d, n);
    else
        start_blend<BLEND_TOWARDS>(k, x, y, gate, d, n);
    return launched(k, "blend");
}

void packed_cuda_init(struct kern_ops *o)
{
    o->gather_rows = gather_rows_cuda;
    o->blend = blend_cuda;
}
