/* Attention on Hopper's tensor cores: the shapes of the kernel, and the memory through which its two sides work together.
 *
 * Persistent blocks share out the pieces of work (a query tile and a KV head). One warpgroup brings queries and key blocks in (attention_feed_sm90.cuh);
 * the others hold 64 packed rows each and compute (attention_compute_sm90.cuh).
 *
 * Shape of the computation: FlashAttention-3, arXiv 2407.08608, section 3; the packed rows of a head group: attention.cuh. */
#pragma once
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/sm90.cuh"

/* HD: head size rounded up to a shape of the kernel; WGS: computing warpgroups; BN: keys of a block. */
template <int HD, int WGS, int BN> struct attention_shape {
    enum {
        THREADS = 128 * (WGS + 1),
        ROWS = 64 * WGS,
        PANELS = (HD + 63) / 64,
        PANEL_BYTES = BN * 128,
        TILE_BYTES = PANELS * PANEL_BYTES,
        STAGES = HD <= 64    ? 4
                 : HD <= 128 ? 3
                             : 2,
        Q_BYTES = PANELS * ROWS * 128,
        Q_IN_REGISTERS = HD <= 128,
        SMEM_BYTES = 1024 + Q_BYTES + 2 * STAGES * TILE_BYTES + ROWS * 8 + 192,
        FEED_REGISTERS = 56,
        COMPUTE_REGISTERS = 224
    };
};

struct sm90_attention_args {
    struct attention_args a;
    struct attention_tiles tiles;
    bool tma;    /* hd is HD itself: blocks of consecutive slots may be copied whole */
    bool direct; /* every run has one row: its tile is made when its turn comes, and there is no list */
};

#if HAVE_SM90

/* Shared memory: addresses, and what is read and written by plain code. */
struct attention_smem {
    uint32_t q, k, v;                          /* one tile; STAGES tiles each */
    uint32_t k_full, k_empty, v_full, v_empty; /* barriers, STAGES each */
    uint32_t q_full, q_empty;                  /* one each */
    volatile int *n_keys;                      /* [1] of the piece; 0: no more */
    volatile int *number;                      /* [2] of a piece, among the feeding threads */
    volatile int2 *row;                        /* [ROWS] (row of `out` in heads, or -1; keys it sees) */
};

#endif /* HAVE_SM90 */
