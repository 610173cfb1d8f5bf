/* A Mamba router's tensors as they come from a checkpoint, and the size of its state. */
#pragma once
#include "kernels/dtype.h"

/* A tensor as it was stored, in host memory, row-major. */
struct kern_tensor {
    const void *data;
    enum dtype type;
};

enum {
    MAMBA_STATE_MAX = 128,
    MAMBA_CONV_MAX = 64,
    MAMBA_DT_MAX = 64,
    MAMBA_INNER_MAX = 4096
}; /* of n_state, n_conv, n_dt, and of r and e */

/* The tensors of a Mamba router (SPEC of UltraDeep, section 3.3), by their names in a checkpoint. Borrowed by mamba_new. */
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
