/* Matmul on Hopper's tensor cores. A persistent block: one warpgroup feeds a ring of stages through the copy engine, the others compute
 * 64 rows each of a tile with wgmma and write it out while the next tile's operands arrive.
 *
 * Every element is one chain over k in steps of 16, whatever the tile: the shapes below give the same bits. */
#pragma once
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/cuda/sm90.cuh"

enum { TILE_K = 64, TILE_K_BYTES = 128 };

/* WGS warpgroups of 64 rows, BN columns, STAGES of the ring. */
template <int WGS, int BN, int STAGES> struct sm90_shape {
    enum {
        BM = 64 * WGS,
        THREADS = 128 * (WGS + 1),
        A_BYTES = BM * TILE_K_BYTES,
        B_BYTES = BN * TILE_K_BYTES,
        STAGE_BYTES = A_BYTES + B_BYTES,
        B_BOX = BN % 64 ? 32 : 64,
        SMEM_BYTES = 1024 + STAGES * STAGE_BYTES + WGS * 4 * STAGING_BYTES + 2 * STAGES * 8
    };
};

#if HAVE_SM90

/* Stage and phase of the ring, advanced by both sides in the same order. */
template <int STAGES> struct ring {
    int stage = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void next()
    {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

#endif /* HAVE_SM90 */
