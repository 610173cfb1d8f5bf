/* What decides a row: shared by the plain kernels and the router that decides in the end of its matmul. */
#pragma once
#include "kernels/cuda/matmul.cuh"

__device__ __forceinline__ float sigmoid_double(double z)
{
    return (float)(1.0 / (1.0 + exp(-z)));
}

/* z / (1 + e^-z) within a few units of the last place. */
__device__ __forceinline__ float silu_near(float z)
{
    return __fdividef(z, 1.0f + expf(-z));
}

/* Where a router's decisions go. */
struct decisions {
    unsigned char *route;
    float *gate, *prob;
    unsigned char below, above;
};

/* DTRNet's decision as the end of the router's matmul: each 64 columns are summed into a part of z0 - z1, the last tile of a row adds the parts in the
 * order of the columns. */
struct router_end {
    struct decisions to;
    const float *w2, *b2; /* f32 [2,m], [2] */
    double *parts;        /* [columns / 64, n_max] */
    int *arrived;         /* [row tiles x warpgroups] zero before and after */
};

/* prob, route and gate of step row r; z = z0 - z1. */
__device__ __forceinline__ void decide_mlp(const struct decisions &to, int r, double z)
{
    float p0 = sigmoid_double(z);
    to.prob[r] = p0;
    to.route[r] = p0 > 0.5f ? to.above : to.below;
    to.gate[r] = p0 > 0.5f ? p0 : sigmoid_double(-z);
}

__device__ __forceinline__ void decide_row(const struct router_end &e, int n_parts, int n_max, int i, int r)
{
    double z = (double)e.b2[0] - e.b2[1];
    for (int t = 0; t < n_parts; t++)
        z += __ldcg(&e.parts[(size_t)t * n_max + i]);
    decide_mlp(e.to, r, z);
}

/* 16-bit, level wgmma, x as tensor_map_fits. parts and arrived are filled in here. */
int route_mlp_sm90(struct cuda_ctx *c, const struct matmul_in *in, const struct kern_matrix *w, struct rows n, struct router_end end);
