/* State of the opened CUDA backend, and how its files report failures.
 *
 * The first failed CUDA call is remembered with its text; from then on every op returns ERR_DEVICE, and sync() hands the text
 * out. What a runtime call returns goes through CU(). */
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
extern "C" {
#include "kernels/backend.h"
#include "kernels/cuda/backend_cuda.h"
#include "kernels/cuda/cuda_level.h"
}

enum { STAGE_PARTS = 8 };

/* A pinned ring for uploads: a part is filled, copied from, and filled again once its event has passed. */
struct stage_ring {
    char *base;
    size_t part_bytes, used; /* used: bytes taken of the current part */
    int part;
    cudaEvent_t done[STAGE_PARTS];
};

/* A copy from device memory that waits in the pinned buffer for the next sync. */
struct pending_download {
    void *dst;
    size_t offset, bytes;
};
enum { DOWNLOADS_MAX = 256 };

/* A sequence of ops by its key (replay.cu). */
enum { RECORDINGS = 64, RECORDING_KEY_MAX = 32 };
struct recording {
    char key[RECORDING_KEY_MAX];
    size_t key_bytes;
    uint64_t used;         /* when last; 0: free */
    cudaGraphExec_t graph; /* NULL: asked for once, not recorded */
};

enum scratch_use {
    SCRATCH_GATHER,
    SCRATCH_SPLIT,
    SCRATCH_TILES,
    SCRATCH_ROUTE,
    SCRATCH_COUNTERS,
    SCRATCH_MAMBA,
    SCRATCH_COLLECTIVE,
    SCRATCH_LOAD,
    SCRATCH_USES
};

/* A kernel that may have `bytes` of shared memory on this device. */
enum { ALLOWED_MAX = 128 };
struct shared_allowed {
    const void *kernel;
    int bytes;
};

struct cuda_group;
struct thread_pool;

struct cuda_ctx {
    struct kern_ctx k;         /* first: a kern_ctx of this backend is a cuda_ctx */
    struct kern_ops ops;       /* k.ops: how the launchers are entered (entry.cu) */
    struct kern_ops launchers; /* of the op files */
    cudaStream_t stream;
    int device, n_sm, smem_bytes; /* shared memory of a multiprocessor */
    enum cuda_level level;        /* the best kernels to use */
    bool chains;                  /* the device and its code can start a kernel early (chain.cuh) */
    bool chained;   /* kernels are issued that do: those of a step of few rows (replay.cu); with many rows it costs more than it saves */
    bool recording; /* a step is being captured */
    /* Ops that run beside others (replay.cu): while a step is recorded they go to a stream of their own, which forks from the other and joins it again. */
    cudaStream_t beside_stream;
    cudaEvent_t forks, joins;
    bool beside; /* such ops are being issued */
    bool high;   /* float32 products in terms of f16 */
    struct {
        const void *kernel;
        int bytes;
    } allowed[ALLOWED_MAX]; /* kernels whose shared memory was asked for on this device, and how much */
    int n_allowed;
    void *encode_tensor_map; /* the driver's function; NULL: not asked for yet */
    struct stage_ring up;
    int n_threads;            /* of the host, that this device may use */
    struct thread_pool *pool; /* they fill the ring where an upload is large; NULL: none was */
    cudaEvent_t marks[BACKEND_MARKS];
    cudaEvent_t stamps[BACKEND_STAMPS]; /* made when first used */
    char *down;                         /* pinned */
    size_t down_bytes, down_used;
    struct pending_download pending[DOWNLOADS_MAX];
    int n_pending;
    void *scratch[2][SCRATCH_USES]; /* grow-only device memory of the ops, one each use; the second of those that run beside others */
    size_t scratch_bytes[2][SCRATCH_USES];
    struct recording recordings[RECORDINGS];
    uint64_t n_replays;
    uint64_t peers;           /* devices, by bit, that this one was asked to reach directly */
    struct cuda_group *group; /* group.cu; NULL: it is no rank */
    int rank;
    struct err failed; /* code 0: healthy */
    char numerics[128];
    struct log *log;
};

static inline struct cuda_ctx *ctx_of(struct kern_ctx *k)
{
    return (struct cuda_ctx *)k;
}

/* Remembers the first failure; returns ERR_DEVICE (ERR_NOMEM for an allocation that failed, which is no device failure). */
int cuda_failed(struct cuda_ctx *c, cudaError_t e, const char *what);

/* 0 or a negative code. */
#define CU(c, call) cuda_check((c), (call), #call)
static inline int cuda_check(struct cuda_ctx *c, cudaError_t e, const char *what)
{
    return e == cudaSuccess ? 0 : cuda_failed(c, e, what);
}

/* After a kernel launch: the launch's own error, or the earlier failure of this context. */
static inline int launched(struct kern_ctx *k, const char *kernel)
{
    struct cuda_ctx *c = ctx_of(k);
    cudaError_t e = cudaGetLastError();
    if (e != cudaSuccess)
        return cuda_failed(c, e, kernel);
    return c->failed.code;
}

/* Makes the context's device that of the calling thread: each call from outside begins with it. */
int cuda_bind(struct cuda_ctx *c);
/* The same where nothing is to be done once the device has failed: 0, or the code of the failure. */
static inline int cuda_enter(struct cuda_ctx *c)
{
    return c->failed.code < 0 ? c->failed.code : cuda_bind(c);
}

/* Before a launch with more shared memory than any kernel may have unasked. It costs a call the first time, and when `bytes` grows. */
int cuda_allow_shared(struct cuda_ctx *c, const void *kernel, int bytes);

/* At least `bytes` of device memory that the op may use until it is asked for again; NULL: no memory (the failure is remembered). */
void *cuda_scratch(struct cuda_ctx *c, enum scratch_use use, size_t bytes);
/* n counters that are zero; the kernel that uses them leaves zeros behind. NULL as above. */
int *cuda_counters(struct cuda_ctx *c, size_t n);

void cuda_drop_recordings(struct cuda_ctx *c);

/* Fills c->ops and c->launchers. */
void entry_cuda_init(struct cuda_ctx *c);

/* Each op file fills its slots. */
void matrix_cuda_init(struct kern_ops *o);
void matmul_cuda_init(struct kern_ops *o);
void rmsnorm_cuda_init(struct kern_ops *o);
void packed_cuda_init(struct kern_ops *o);
void route_cuda_init(struct kern_ops *o);
void mamba_cuda_init(struct kern_ops *o);
void select_cuda_init(struct kern_ops *o);
void heads_cuda_init(struct kern_ops *o);
void place_cuda_init(struct kern_ops *o);
void branch_cuda_init(struct kern_ops *o);
void rope_cuda_init(struct kern_ops *o);
void attention_cuda_init(struct kern_ops *o);
void attention_few_cuda_init(struct kern_ops *o);
void logprobs_cuda_init(struct kern_ops *o);
void replay_cuda_init(struct kern_ops *o);
void replicate_cuda_init(struct kern_ops *o);
