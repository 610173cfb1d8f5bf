/* Attention on Hopper: the kernel and its launch. attention_sm90.cuh has the design. */
#include "kernels/cuda/attention_compute_sm90.cuh"
#include "kernels/cuda/attention_feed_sm90.cuh"
#include "kernels/cuda/matmul.cuh"

template <typename T, int HD, int WGS, int BN>
__global__ void __launch_bounds__(128 * (WGS + 1), 1)
    attention_sm90_pieces(const __grid_constant__ CUtensorMap map, const __grid_constant__ CUtensorMap q_map,
                          const __grid_constant__ struct sm90_attention_args p)
{
#if HAVE_SM90
    typedef attention_shape<HD, WGS, BN> S;
    extern __shared__ __align__(1024) char raw[];
    uint32_t q = smem_address(raw), k = q + S::Q_TILES * S::Q_BYTES, v = k + S::K_STAGES * S::TILE_BYTES,
             bars = v + S::V_STAGES * S::TILE_BYTES;
    static_assert(sizeof(struct attention_smem_plain) + S::Q_TILES * S::ROWS * sizeof(int2) <= S::PLAIN_BYTES, "room");
    struct attention_smem m = {
        q,         k,         v,          bars,       bars + 32,
        bars + 64, bars + 96, bars + 128, bars + 144, (struct attention_smem_plain *)(raw + (bars - q) + S::BARRIER_BYTES)};
    chain_start_next();
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::K_STAGES; i++) {
            barrier_init(m.k_full + i * 8, 128);
            barrier_init(m.k_empty + i * 8, WGS);
        }
        for (int i = 0; i < S::V_STAGES; i++) {
            barrier_init(m.v_full + i * 8, 128);
            barrier_init(m.v_empty + i * 8, WGS);
        }
        for (int i = 0; i < S::Q_TILES; i++) {
            barrier_init(m.q_full + i * 8, 128);
            barrier_init(m.q_empty + i * 8, WGS * 4);
        }
        barrier_init_fence();
    }
    __syncthreads();
    chain_wait();
    if (threadIdx.x < 128) {
        registers_lower<S::FEED_REGISTERS>();
        feed_attention<T, HD, WGS, BN>(p, &map, &q_map, m, (p.direct ? p.a.n_runs : *p.tiles.count) * p.a.hk);
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
    CUtensorMap map = {}, q_map = {};
    p.tma = a->hd == HD && tensor_map_fits(a->kv, (size_t)4 * a->hk * a->hd);
    p.tma_q = p.tma && S::ROWS % group == 0 && tensor_map_fits(a->qkv, (size_t)2 * (a->h + 2 * a->hk) * a->hd);
    if (p.tma) /* how many slots the pool has is not known here; the kernel names slots of the tables only */
        r = tensor_map(c, &map, c->k.act, a->kv, INT32_MAX, 2 * a->hk * a->hd, (size_t)2 * a->hk * a->hd, BN);
    if (r >= 0 && p.tma_q)
        r = tensor_map_heads(c, &q_map, c->k.act, a->qkv, a->n_max, a->h + 2 * a->hk, HD, S::ROWS / group, group);
    if (r < 0)
        return r;
    chain_launch(c, kernel, pieces < c->n_sm ? pieces : c->n_sm, S::THREADS, S::SMEM_BYTES, map, q_map, p);
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
