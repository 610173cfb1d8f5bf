/* The collectives of struct backend (backend.h) by NCCL. */
#pragma once
#include "kernels/cuda/cuda_ctx.cuh"

int group_open_cuda(struct kern_ctx *const *ranks, int n, struct err *err);
void group_fail_cuda(struct kern_ctx *k);
void group_close_cuda(struct kern_ctx *const *ranks, int n);
int all_gather_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows);
int take_columns_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                      int rows);
