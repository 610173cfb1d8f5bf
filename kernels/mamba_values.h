/* A Mamba router's small tensors as both backends compute with them: checked, as floats, and with what does not depend on a row worked out.
 *
 * Only r0 - r1 is ever needed, and what follows the scan is linear: with w = out_proj[0] - out_proj[1],
 *     r0 - r1 = sum_j of_u[j] u[j] + sum_e of_y[e] y[e] + offset,   of_u = w,  of_y = mixer.out_proj^T w,  offset = b[0] - b[1].
 * e^(D A) is taken as 2^(D rate) with rate = -e^A_log / ln 2. */
#pragma once
#include "common/err.h"
#include "kernels/mamba.h"

struct mamba_values {
    int d, r, e, n_state, n_conv, n_dt;
    int x_cols; /* n_dt + 2 n_state */
    float eps;
    float *norm;             /* [r] */
    float *conv, *conv_bias; /* [n_conv, e], [e] */
    float *dt, *dt_bias;     /* [n_dt, e], [e] */
    float *rate;             /* [e, n_state], <= 0 */
    float *skip;             /* [e] */
    double *of_u, *of_y;     /* [r], [e] */
    double offset;
    void *memory; /* of all arrays */
};

/* ERR_UNSUPPORTED: a size beyond mamba.h's limits; ERR_CORRUPT: a value that is not finite, in a tensor that is named; ERR_NOMEM. */
int mamba_values_new(const struct mamba_parts *parts, struct mamba_values *ret, struct err *err);
/* dst[j*ld + i] = src[i,j] for a tensor [rows,cols]; ERR_CORRUPT names it where a value is not finite. */
int mamba_values_take(float *dst, size_t ld, const struct kern_tensor *src, const char *name, int rows, int cols, struct err *err);
void mamba_values_free(struct mamba_values *v); /* copes with zeros */
