/* The collectives of struct backend (backend.h): ranks are devices of one process. Large gathers are made by the devices' copy engines (gather_direct.cu),
 * small ones, and those of devices that do not reach one another's memory, by NCCL (group.cu). */
#pragma once
#include "kernels/cuda/cuda_ctx.cuh"
#include <pthread.h>

struct nccl;
struct nccl_comm;

enum { GROUP_RANKS_MAX_CUDA = 64, GATHER_SLOTS = 4 };

/* What a rank tells the others of its direct gathers; number i is told in slot i % GATHER_SLOTS. */
struct gather_rank {
    cudaStream_t stream;             /* of its copies; NULL: gathers are not direct */
    cudaEvent_t ready[GATHER_SLOTS]; /* its part is computed, and dst may be written */
    cudaEvent_t sent[GATHER_SLOTS];  /* its part is in every rank's dst */
    char *dst[GATHER_SLOTS];         /* [rows, ranks, bytes] */
    unsigned long n_ready, n_sent;   /* gathers for which the events above were recorded; under the group's lock */
    unsigned long n_awaited;         /* gathers that its own stream waits for */
};

struct cuda_group {
    const struct nccl *nccl;
    int n;
    pthread_mutex_t lock;
    pthread_cond_t told; /* a rank has got further, or failed */
    bool failed;         /* under the lock */
    struct nccl_comm *comms[GROUP_RANKS_MAX_CUDA];
    struct gather_rank ranks[GROUP_RANKS_MAX_CUDA];
};

bool group_has_failed(struct cuda_group *g);
int group_open_cuda(struct kern_ctx *const *ranks, int n, struct err *err);
void group_fail_cuda(struct kern_ctx *k);
void group_close_cuda(struct kern_ctx *const *ranks, int n);
int all_gather_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows);
int await_gathers_cuda(struct kern_ctx *k, int but);
int take_columns_cuda(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                      int rows);

/* Makes the rank's stream and events if every device can write to every other's memory; else leaves them NULL. Called for all ranks in turn. */
int gather_direct_open(struct cuda_group *g, struct kern_ctx *const *ranks);
void gather_direct_close(struct cuda_group *g, struct kern_ctx *const *ranks);
/* all_gather and await_gathers (backend.h) by copy engines. */
int gather_direct(struct cuda_ctx *c, char *dst, const char *src, size_t bytes, int rows);
int gather_direct_await(struct cuda_ctx *c, int but);
