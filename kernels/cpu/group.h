/* The collectives of struct backend (backend.h) on the CPU, where ranks are threads of one process. */
#pragma once
#include "kernels/backend.h"

int cpu_group_open(struct kern_ctx *const *ranks, int n, struct err *err);
void cpu_group_fail(struct kern_ctx *k);
void cpu_group_close(struct kern_ctx *const *ranks, int n);
int cpu_all_gather(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows);
int cpu_await_gathers(struct kern_ctx *k, int but);
int cpu_take_columns(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                     int rows);
