/* What the attention kernels share: their arguments, and the list of query tiles.
 *
 * A query tile is a number of *packed rows* of one run and one KV head: packed row p is query head p % group of the head's group at the
 * run's selected row p / group. Keys are walked from 0 up in blocks aligned to their index, and a block that a row does not see leaves
 * its sums as they are to the bit, so a row's result does not depend on what shares its tile. */
#pragma once
#include "kernels/cuda/common.cuh"

struct attention_args {
    const void *qkv, *kv; /* act */
    void *out;
    const struct kern_run *runs;
    const int *tables;
    const int *sel, *sel_n, *run_start, *visible, *run_of;
    int layer, h, hk, hd, n_runs, n_max;
    float scale;
    bool packed; /* rows are numbered among the executed ones; else run by run */
    bool again;  /* tiles have been listed (kern_place) */
};

/* A query tile. The keys that its last row sees are those that any of its rows sees. */
struct attention_tile {
    int start, first, rows; /* the run's first place in sel; first packed row, and how many */
    int n_keys, table_cap;
    int row;           /* step row of the first packed row where those of the tile follow each other; or -1 */
    int64_t table_off; /* of the run; the tile is of any layer */
    __device__ __forceinline__ const int *slots(const struct attention_args &a) const
    {
        return a.tables + table_off + (int64_t)a.layer * table_cap;
    }
};

struct attention_tiles {
    int *count;      /* [1] */
    int *taken;      /* [1] pieces (a tile and a KV head) handed out beyond the first of each block; 0 before and after a kernel */
    unsigned *ended; /* [1] blocks that have taken their last; likewise */
    struct attention_tile *tile; /* run by run, a run's most keys first: what runs together reads the same keys; the last runs by size */
};

/* One thread of each block, which has taken its last piece: the list is ready for the next layer. */
__device__ __forceinline__ void attention_end_block(const struct attention_tiles &t)
{
    __threadfence();
    if (atomicInc(t.ended, gridDim.x - 1) == gridDim.x - 1)
        *t.taken = 0;
}

/* 2^x, as close as the special function unit gets it. */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* The arguments of an op of attention. */
struct attention_args attention_args_of(const struct kern_heads *hs, struct dev_act *out, const struct dev_act *qkv,
                                        const struct kern_step *s, int layer, const struct kern_place *p, float scale);

int attention_f32(struct cuda_ctx *c, const struct attention_args *a);
/* float32 in terms of f16, heads of HIGH_HEAD elements at most: levels mma and wgmma. */
enum { HIGH_HEAD = 128 };
int attention_high(struct cuda_ctx *c, const struct attention_args *a);
/* 16-bit: level simt. */
int attention_simt(struct cuda_ctx *c, const struct attention_args *a);
/* 16-bit, any head size: level mma, and wgmma. */
int attention_mma(struct cuda_ctx *c, const struct attention_args *a);
int attention_sm90(struct cuda_ctx *c, const struct attention_args *a);
/* Lists the tiles of `tile_rows` packed rows. */
int attention_list_tiles(struct cuda_ctx *c, const struct attention_args *a, int tile_rows, struct attention_tiles *ret);
