/* The Mamba router on the CPU: its weights, and the scratch that all routers of a context share.
 *
 * Rows go through in blocks: products by the accurate matmul, what is row by row over the pool, then the scan, a task for some channels of
 * a run. Everything but the products is plain C (mamba_rows.c, mamba_scan.c, built for several levels). */
#pragma once
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/route.h"
#include "kernels/mamba_values.h"

/* Rows of a block; channels of a scan task; parts of a channel's states, whose shares of y are added as a tree, so that tasks may divide them too. */
enum { MAMBA_BLOCK = 256, MAMBA_GROUP = SUM_LANES, MAMBA_PARTS = 4 };

struct kern_mamba {
    struct mamba_values v;
    int ep;      /* e rounded up to a multiple of MAMBA_GROUP */
    float *rate; /* [n_state, ep]; beyond e zero */
    struct kern_matrix *in, *mix, *x;
    size_t bytes;
};

/* Of the block's rows; u[i] is row i's. Beyond e, the arrays of ep columns hold zeros. */
struct mamba_block {
    struct kern_ctx *k;
    const struct kern_mamba *w;
    struct decisions to;
    unsigned char *bad;
    const struct kern_step *s;
    const struct kern_run *runs;
    const int *run_of;
    const struct kern_save *saves;
    int router;
    int row0, n;           /* step rows row0 .. row0+n-1 */
    int run0;              /* the run of row0 */
    float *u, *normed;     /* [n, r] */
    float *az;             /* [n, 2e]; before it the n_conv - 1 rows that precede row0 */
    float *c, *x;          /* [n, e], [n, x_cols] */
    float *delta, *input;  /* [n, ep]: D, D * c */
    float *y[MAMBA_PARTS]; /* [n, ep] sum of S C over a part of the states; then [0]: y */
    float *carry;          /* [e, n_state]: the state before row0, where its run began before it */
    int parts_a_task;      /* of the scan: 1 or MAMBA_PARTS */
    const float *zeros;    /* [e] */
    unsigned char *wanted; /* [n] the row gets a decision */
};

/* Makes as much scratch as another context has. */
int mamba_reserve_as(struct cpu *c, const struct cpu *other);
/* Points the block's arrays into the scratch. */
void mamba_divide_scratch(struct mamba_block *b);

/* The slot's state of the block's router; -1: NULL. */
static inline float *mamba_state(const struct mamba_block *b, int slot)
{
    return slot < 0 ? NULL : f32_of(b->s->states) + ((size_t)slot * b->s->n_routers + b->router) * b->s->state_floats;
}

/* a of the row `back` rows before row i of the block, which is row `pos` of its run; older ones come from the tail of the run's first state. */
static inline const float *mamba_a(const struct mamba_block *b, const float *tail, int i, int pos, int back)
{
    int e = b->w->v.e;
    if (back <= pos)
        return b->az + (ptrdiff_t)(i - back) * 2 * e;
    return tail ? tail + (size_t)(b->w->v.n_conv - 1 - (back - pos)) * e : b->zeros;
}
