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
        Q_IN_REGISTERS = HD <= 64 || (WGS == 1 && HD <= 128), /* where it leaves the feeding warps enough */
        Q_TILES = HD <= 128 ? 2 : 1,
        K_STAGES = HD <= 64    ? 4
                   : HD <= 128 ? 3
                               : 2,
        V_STAGES = HD <= 64 ? 4 : 2,
        LAG = V_STAGES == 4 ? 3 : K_STAGES - 1, /* of announcements; with more, place for a tile could wait for one not yet announced */
        Q_BYTES = PANELS * ROWS * 128,
        PLAIN_BYTES = Q_TILES * ROWS * 8 + 192,
        BARRIER_BYTES = 160,
        SMEM_BYTES = Q_TILES * Q_BYTES + (K_STAGES + V_STAGES) * TILE_BYTES + BARRIER_BYTES + PLAIN_BYTES,
        FEED_REGISTERS = HD <= 128 ? 88 : 56,
        COMPUTE_REGISTERS = HD <= 128 ? 208 : 224
    };
};

struct sm90_attention_args {
    struct attention_args a;
    struct attention_tiles tiles;
    bool tma;    /* hd is HD itself: blocks of consecutive slots may be copied whole, */
    bool tma_q;  /* and, where tiles hold whole step rows, the queries of consecutive ones */
    bool direct; /* every run has one row: its tile is made when its turn comes, and there is no list */
};

#if HAVE_SM90

/* Shared memory: addresses, and what is read and written by plain code. */
struct attention_smem {
    uint32_t q, k, v;                          /* Q_TILES, K_STAGES and V_STAGES tiles */
    uint32_t k_full, k_empty, v_full, v_empty; /* barriers, one a stage */
    uint32_t q_full, q_empty;                  /* one a tile */
    struct attention_smem_plain *plain;
};

struct attention_smem_plain {
    struct attention_tile
        tile[4];           /* of pieces by turn, among the feeding threads: some may still read one when the next but one is written */
    int head[4], asked[2]; /* their KV heads; number of the piece after the next */
    int n_keys[2];         /* of the pieces whose queries are there; 0: no more */
    int2 row[];            /* [Q_TILES][ROWS] (row of `out` in heads, or -1; keys it sees) */
};

#endif /* HAVE_SM90 */
