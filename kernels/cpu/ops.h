/* What each op file of kernels/cpu gives to the table and to the others. */
#pragma once
#include "kernels/cpu/cpu.h"

/* Fill the slots of one file with its scalar forms. */
void rmsnorm_init(struct kern_ops *o);
void route_init(struct kern_ops *o);
void place_init(struct kern_ops *o);
void rope_init(struct kern_ops *o);
void attention_init(struct kern_ops *o);
void gates_init(struct kern_ops *o);
void logprob_init(struct kern_ops *o);
void matrix_init(struct kern_ops *o);    /* matrix_new, matrix_free, matrix_bytes, embed */
void matmul_init(struct kern_ops *o);

/* 1 / sqrt(mean(x^2) + eps) of x[d]. */
float rms_scale_c(const float *x, int d, float eps);
