/* What decides a row: shared by the plain kernels and the router that decides in the end of its matmul. */
#pragma once
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/place.cuh"
#include "kernels/portable.h"

/* z / (1 + e^-z) within a few units of the last place. */
__device__ __forceinline__ float silu_near(float z)
{
    return __fdividef(z, 1.0f + expf(-z));
}

/* Where a router's decisions go. */
struct decisions {
    unsigned char *route;
    float *gate, *prob, *margin; /* gate and margin: NULL where they are not wanted */
    const float *threshold;      /* or NULL */
    unsigned char below, above;
};

static inline struct decisions decisions_of(const struct route_out *to)
{
    return {u8_of(to->route), f32_of(to->gate), f32_of(to->prob), f32_of(to->margin), f32_of(to->threshold), to->below, to->above};
}

/* DTRNet's decision as the end of the router's matmul: each 64 columns are summed into a part of z0 - z1, the last tile of a row adds the parts in the
 * order of the columns. */
struct router_end {
    struct decisions to;
    const float *w2, *b2; /* f32 [2,m], [2] */
    double *parts;        /* [columns / 64, n_max] */
    int *arrived;         /* one each 64 rows, or each ACCURATE_FEW_TILE: zero before and after */
};

/* Everything of step row r from its margin z. One that is not a finite number is decided below, with NaN for the rest. */
__device__ __forceinline__ void decide_margin(const struct decisions &to, int r, double z)
{
    bool finite = z - z == 0;
    float p0 = finite ? portable_sigmoid(z) : portable_nan(), margin = finite ? (float)z : portable_nan();
    bool above = to.threshold ? margin > *to.threshold : p0 > 0.5f;
    to.prob[r] = p0;
    to.route[r] = above ? to.above : to.below;
    if (to.gate)
        to.gate[r] = above || !finite ? p0 : portable_sigmoid(-z);
    if (to.margin)
        to.margin[r] = margin;
}

__device__ __forceinline__ void decide_row(const struct router_end &e, int n_parts, int n_max, int i, int r)
{
    double z = (double)e.b2[0] - e.b2[1];
    for (int t = 0; t < n_parts; t++)
        z += __ldcg(&e.parts[(size_t)t * n_max + i]);
    decide_margin(e.to, r, z);
}

/* matmul_accurate_sm90's products of few rows, or the router's end of them, for what fits: END_F32 and ACCURATE_FEW_ROWS rows at most. */
enum { ACCURATE_FEW_ROWS = 128, ACCURATE_FEW_TILE = 16 };
bool matmul_accurate_few_fits(const struct cuda_ctx *c, const struct kern_matrix *w, const struct matmul_out *out);
/* place, behind a router: what is done with the decisions of all rows once they are there. */
struct router_place {
    struct place_args a; /* of ACCURATE_FEW_ROWS rows at most; run_of NULL: nothing is done */
    int *decided;        /* tiles of rows that have; zero before and after */
};
int matmul_accurate_few_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, const struct matmul_out *out,
                             const struct router_end *router, const struct router_place *place);

/* 16-bit, level wgmma, x as tensor_map_fits. parts and arrived are filled in here. */
int route_mlp_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, struct rows n, struct router_end end);
/* The same and place: 1; 0: too many rows or columns, and nothing was done. */
int route_mlp_place_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, struct rows n, struct router_end end,
                         const struct place_args *place);
