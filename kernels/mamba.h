/* UltraDeep's Mamba router: what it computes, its tensors as they come from a checkpoint, and the size of its state.
 *
 * Of a sequence's rows x_t, in order (the mixer is that of Mamba, arXiv 2312.00752; norm is RMSNorm):
 *     u = in_proj x + b                     n = norm(u)                      (a, z) = mixer.in_proj n
 *     c = silu(conv1d.bias + sum_j conv1d[j] a_{t-n_conv+1+j})               a before the first row is 0
 *     (dt, B, C) = x_proj c                 D = softplus(dt_proj dt + b)     softplus(y) = log(1 + e^y)
 *     S[e,i] = e^(D[e] A[e,i]) S_{t-1}[e,i] + D[e] B[i] c[e]                 A = -e^A_log; S before the first row is 0
 *     y[e] = (sum_i S[e,i] C[i] + skip[e] c[e]) silu(z[e])
 *     (r0, r1) = out_proj (u + mixer.out_proj y) + b                         the margin is r0 - r1, p0 = 1 / (1 + e^-margin) */
#pragma once
#include "kernels/dtype.h"

/* A tensor as it was stored, in host memory, row-major. */
struct kern_tensor {
    const void *data;
    enum dtype type;
};

/* The greatest sizes: of n_state, n_conv, n_dt, and of r and e. */
enum { MAMBA_STATE_MAX = 128, MAMBA_CONV_MAX = 64, MAMBA_DT_MAX = 64, MAMBA_INNER_MAX = 4096 };

/* By their names in a checkpoint; borrowed by mamba_new. */
struct mamba_parts {
    int d;       /* columns of x */
    int r;       /* router_dim, 1 .. MAMBA_INNER_MAX */
    int e;       /* router_expand * r, 1 .. MAMBA_INNER_MAX */
    int n_state; /* router_d_state, 1 .. MAMBA_STATE_MAX */
    int n_conv;  /* router_d_conv, 2 .. MAMBA_CONV_MAX */
    int n_dt;    /* router_dt_rank, 1 .. MAMBA_DT_MAX */
    float eps;
    struct kern_tensor in_proj, in_proj_bias;   /* [r,d], [r] */
    struct kern_tensor norm;                    /* [r] */
    struct kern_tensor mixer_in_proj;           /* [2e,r]: e rows of a, e of z */
    struct kern_tensor conv1d, conv1d_bias;     /* [e,n_conv], [e] */
    struct kern_tensor x_proj;                  /* [n_dt + 2 n_state, e]: dt, B, C */
    struct kern_tensor dt_proj, dt_proj_bias;   /* [e,n_dt], [e] */
    struct kern_tensor a_log;                   /* [e,n_state] */
    struct kern_tensor skip;                    /* [e]: mixer.D */
    struct kern_tensor mixer_out_proj;          /* [r,e] */
    struct kern_tensor out_proj, out_proj_bias; /* [2,r], [2] */
};

/* Floats of one router's state: the last n_conv - 1 rows of a, [n_conv-1, e], oldest first, then S [e, n_state]. */
static inline size_t mamba_state_floats(int e, int n_state, int n_conv)
{
    return (size_t)e * (size_t)(n_conv - 1 + n_state);
}
