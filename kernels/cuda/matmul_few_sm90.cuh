/* What the matmuls of few rows on Hopper share (matmul_few_sm90.cu has the idea): a ring whose length is known at run time, the products of one block of k, and the
 * choice of the tile. */
#pragma once
#include "kernels/cuda/matmul_sm90.cuh"

enum { FEW_COMPUTING = 128 }; /* threads: four warps; those behind them feed */

#if HAVE_SM90

struct few_ring {
    int stage = 0, stages;
    uint32_t phase = 0;
    __device__ __forceinline__ few_ring(int n) : stages(n) {}
    __device__ __forceinline__ void next()
    {
        if (++stage == stages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

/* One thread: a full barrier, of `feeders` threads, and an empty one for each stage. */
__device__ __forceinline__ void few_barriers(uint32_t full, uint32_t empty, int stages, int feeders)
{
    for (int i = 0; i < stages; i++) {
        barrier_init(full + i * 8, feeders);
        barrier_init(empty + i * 8, 1);
    }
    barrier_init_fence();
}

/* Starts acc += x w^T of TILE_K columns, the first of all if `first`; all but these products are done when it returns. */
template <typename T, int BN> __device__ __forceinline__ void few_multiply(float (&acc)[BN / 2], uint32_t x, uint32_t w, bool first)
{
    uint64_t dx = tile_k_major(x), dw = tile_k_major(w);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++)
        wgmma<T, BN>::ss(acc, dx + i * 2, dw + i * 2, !first || i > 0);
    wgmma_commit();
    wgmma_wait<1>();
}

#endif

/* The map of w with boxes of BN rows. */
template <int BN> static inline const CUtensorMap *few_map(const struct kern_matrix *w)
{
    return BN == 8 ? &w->box8 : BN == 16 ? &w->box16 : BN == 24 ? &w->box24 : BN == 32 ? &w->box32 : BN == 48 ? &w->box48 : &w->box64;
}

/* What is to be cut into tiles: so many rows of x by the packed rows of one matrix, or of two. */
struct few_size {
    int m, k, rows, second_rows;
    bool swiglu;
};

static inline struct few_size few_size_of(const struct kern_matrix *w, const struct matmul_out *out, const struct matmul_second *second)
{
    return {out->rows.n_max, w->k, w->rows, second ? second->w->rows : 0, out->end == END_SWIGLU};
}

/* Another matrix that takes the same rows: its tiles are those of the blocks from `first` on. */
struct few_second {
    int first;
    struct tile_args t;
};

/* How a kernel's tiles of bn columns and depth k fare on a multiprocessor. */
struct few_costs {
    int resident; /* blocks that it holds at once */
    int alone;    /* percent of its time that a block takes which has a multiprocessor to itself: it keeps fewer bytes on the way */
};

/* Columns of a tile, 8, 16, 24, 32, 48 or 64: the narrowest of the cheapest. Counted is what the multiprocessor with the most tiles must bring in for each k
 * block, in rows of x and of the weights; tiles beyond those that it holds at once find nothing under way when they begin, which takes as long as LATE_BYTES
 * more. SwiGLU pairs columns in groups of 16. ret_cost: or NULL. */
int few_width(const struct cuda_ctx *c, struct few_size z, struct few_costs (*costs)(int k, int bn), int *ret_cost);
