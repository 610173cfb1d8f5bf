/* Attention on Hopper: the kernel and its launch. attention_sm90.cuh has the design. */
#include "kernels/cuda/attention_compute_sm90.cuh"
#include "kernels/cuda/attention_feed_sm90.cuh"
#include "kernels/cuda/matmul.cuh"

template <typename T, int HD, int WGS, int BN>
__global__ void __launch_bounds__(128 * (WGS + 1), 1)
    attention_sm90_pieces(const __grid_constant__ CUtensorMap map, const __grid_constant__ struct sm90_attention_args p)
{
#if HAVE_SM90
    typedef attention_shape<HD, WGS, BN> S;
    extern __shared__ char raw[];
    uint32_t q = (smem_address(raw) + 1023) & ~1023u, k = q + S::Q_BYTES, v = k + S::STAGES * S::TILE_BYTES,
             bars = v + S::STAGES * S::TILE_BYTES;
    char *plain = raw + (bars - smem_address(raw)) + 144;
    struct attention_smem m = {q,
                               k,
                               v,
                               bars,
                               bars + 32,
                               bars + 64,
                               bars + 96,
                               bars + 128,
                               bars + 136,
                               (volatile int *)plain,
                               (volatile int *)plain + 1,
                               (volatile int2 *)(plain + 16)};
    chain_start_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(m.k_full + i * 8, 128);
            barrier_init(m.v_full + i * 8, 128);
            barrier_init(m.k_empty + i * 8, WGS);
            barrier_init(m.v_empty + i * 8, WGS);
        }
        barrier_init(m.q_full, 128);
        barrier_init(m.q_empty, WGS * 4);
        barrier_init_fence();
    }
    __syncthreads();
    chain_wait();
    if (threadIdx.x < 128) {
        registers_lower<S::FEED_REGISTERS>();
        feed_attention<T, HD, WGS, BN>(p, &map, m, (p.direct ? p.a.n_runs : *p.tiles.count) * p.a.hk);
    } else {
        registers_raise<S::COMPUTE_REGISTERS>();
        compute_attention<T, HD, WGS, BN>(p, m);
    }
#endif
}

template <typename T, int HD, int WGS, int BN> static int start(struct cuda_ctx *c, const struct attention_args *a)
{
    typedef attention_shape<HD, WGS, BN> S;
    auto kernel = attention_sm90_pieces<T, HD, WGS, BN>;
    int r = cuda_allow_shared(c, (const void *)kernel, S::SMEM_BYTES);
    if (r < 0)
        return r;
    struct sm90_attention_args p = {*a};
    int group = a->h / a->hk, pieces = (a->n_max * group / S::ROWS + a->n_runs) * a->hk; /* at most */
    p.direct = a->n_runs == a->n_max && group <= S::ROWS;
    if (!p.direct)
        r = attention_list_tiles(c, a, S::ROWS, &p.tiles);
    if (r < 0)
        return r;
    CUtensorMap map = {};
    p.tma = a->hd == HD && tensor_map_fits(a->kv, (size_t)4 * a->hk * a->hd);
    if (p.tma) /* how many slots the pool has is not known here; the kernel names slots of the tables only */
        r = tensor_map(c, &map, c->k.act, a->kv, INT32_MAX, 2 * a->hk * a->hd, (size_t)2 * a->hk * a->hd, BN);
    if (r < 0)
        return r;
    chain_launch(c, kernel, pieces < c->n_sm ? pieces : c->n_sm, S::THREADS, S::SMEM_BYTES, map, p);
    return launched(&c->k, "attention_sm90");
}

template <typename T> static int choose(struct cuda_ctx *c, const struct attention_args *a)
{
    if (a->hd <= 64)
        return start<T, 64, 2, 128>(c, a);
    if (a->hd <= 96)
        return start<T, 96, 2, 128>(c, a);
    if (a->hd <= 128)
        return start<T, 128, 2, 128>(c, a);
    return start<T, 256, 2, 64>(c, a);
}

int attention_sm90(struct cuda_ctx *c, const struct attention_args *a)
{
    return c->k.act == DTYPE_BF16 ? choose<__nv_bfloat16>(c, a) : choose<__half>(c, a);
}
