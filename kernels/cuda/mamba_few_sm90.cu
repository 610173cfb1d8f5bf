/* u of the Mamba router for few rows at level wgmma: the products of matmul_accurate_sm90.cu, a block of 64 columns of x and 64 of u each on its own, so
 * that all of them run at once. mamba_few.cu adds them in the order in which that matmul does. */
#include "kernels/cuda/accurate_sm90.cuh"
#include "kernels/cuda/mamba.cuh"

enum { X_BYTES = FEW_ROWS * 64 * 4, W_BYTES = 64 * TILE_K_BYTES, SMEM_BYTES = 1024 + X_BYTES + W_BYTES };

struct parts_args {
    float *part, *unscale; /* [blocks, FEW_ROWS, ld], [blocks, FEW_ROWS] */
    int n, ld, term_ld, n_terms;
    const char *ahead; /* what the next kernel reads, to be brought to the L2 cache */
    size_t ahead_bytes;
};

#if HAVE_SM90

__device__ __forceinline__ void store_part(const struct parts_args &a, float (&part)[PART / 2], const struct x_terms &x)
{
    int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        if (row + h * 8 >= a.n)
            break;
        size_t at = (size_t)blockIdx.x * FEW_ROWS + row + h * 8;
        if (lane % 4 == 0 && blockIdx.y == 0)
            a.unscale[at] = x.unscale[h];
#pragma unroll
        for (int j = 0; j < PART / 8; j++)
            *(float2 *)&a.part[at * a.ld + blockIdx.y * 64 + j * 8 + lane % 4 * 2] =
                make_float2(part[j * 4 + h * 2], part[j * 4 + h * 2 + 1]);
    }
}

#endif

/* Block b of the chain: a term of the weights, the smallest first, and 64 columns of x. */
__global__ static void __launch_bounds__(128)
    parts_of_u(const __grid_constant__ CUtensorMap mx, const __grid_constant__ CUtensorMap mw, const __grid_constant__ struct parts_args a)
{
#if HAVE_SM90
    extern __shared__ char raw[];
    __shared__ __align__(8) uint64_t arrived;
    uint32_t tiles = (smem_address(raw) + 1023) & ~1023u, bar = smem_address(&arrived);
    int k0 = blockIdx.x * 64;
    if (threadIdx.x == 0) {
        barrier_init(bar, 1);
        barrier_init_fence();
        barrier_expect(bar, X_BYTES + W_BYTES);
        tma_load(tiles, &mx, k0 % a.term_ld, 0, bar);
        tma_load(tiles + 64 * 128, &mx, k0 % a.term_ld + 32, 0, bar);
        tma_load(tiles + X_BYTES, &mw, k0, blockIdx.y * 64, bar);
    }
    size_t thread = ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * 128 + threadIdx.x, threads = (size_t)gridDim.x * gridDim.y * 128;
    for (size_t i = thread * 128; i < a.ahead_bytes; i += threads * 128)
        asm volatile("prefetch.global.L2 [%0];" ::"l"(a.ahead + i));
    __syncthreads();
    barrier_wait(bar, 0);
    struct x_terms x;
    float part[PART / 2];
    x.split(raw + (tiles - smem_address(raw)));
    if (k0 < (a.n_terms - 1) * a.term_ld)
        multiply_terms<false>(part, x, tiles + X_BYTES);
    else
        multiply_terms<true>(part, x, tiles + X_BYTES);
    wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < PART / 2; i++)
        asm volatile("" : "+f"(part[i])::"memory");
    x.ready();
    store_part(a, part, x);
#endif
}

static int blocks_of(const struct kern_matrix *in)
{
    return in->n_terms * in->term_ld / 64;
}
static int ld_of(const struct kern_matrix *in)
{
    return div_up(in->rows, 64) * 64;
}

size_t mamba_parts_floats(const struct kern_matrix *in)
{
    return (size_t)blocks_of(in) * FEW_ROWS * (ld_of(in) + 1);
}

int mamba_parts_sm90(struct cuda_ctx *c, const struct kern_mamba *m, const float *x, int n, float *scratch, struct mamba_parts_of_u *ret)
{
    const struct kern_matrix *in = m->in;
    int blocks = blocks_of(in), ld = ld_of(in);
    float *unscale = scratch + (size_t)blocks * FEW_ROWS * ld;
    CUtensorMap mx;
    int r = tensor_map(c, &mx, DTYPE_F32, x, n, in->k, in->k, FEW_ROWS);
    if (r < 0)
        return r;
    struct parts_args a = {scratch, unscale, n, ld, in->term_ld, in->n_terms, (const char *)bytes_of(m->memory), m->bytes};
    *ret = {scratch, unscale, blocks, ld, in->term_unscale, in->bias};
    parts_of_u<<<dim3(blocks, ld / 64), 128, SMEM_BYTES, c->stream>>>(mx, in->box64, a);
    return launched(&c->k, "mamba parts");
}
