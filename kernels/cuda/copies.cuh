/* The memory and copies of struct backend (backend.h), which says what each does. */
#pragma once
#include "kernels/cuda/cuda_ctx.cuh"

struct dev_bytes *copies_alloc(struct kern_ctx *k, size_t bytes);
void copies_free(struct kern_ctx *k, struct dev_bytes *p);
int copies_upload(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes);
int copies_download(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes);
/* Whether c's device, which is the thread's, can write to memory of another one; from then on it may. */
bool copies_reach(struct cuda_ctx *c, int device);
/* Between two devices, on k's stream. */
int copies_peer(struct kern_ctx *k, struct dev_bytes *dst, struct kern_ctx *from, const struct dev_bytes *src, size_t bytes);
int copies_sync(struct kern_ctx *k, struct err *err);
void *copies_alloc_host(struct kern_ctx *k, size_t bytes);
void copies_free_host(struct kern_ctx *k, void *p);
int copies_fetch(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes);
int copies_mark(struct kern_ctx *k, int i);
int copies_wait(struct kern_ctx *k, int i, struct err *err);
int copies_stamp(struct kern_ctx *k, int i);
double copies_stamp_seconds(struct kern_ctx *k, int a, int b);
int copies_memory(struct kern_ctx *k, struct backend_memory *ret);
