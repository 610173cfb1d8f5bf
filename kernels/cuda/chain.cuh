/* Kernels that follow each other closely. A kernel of a decoding step works for few microseconds, and as many pass from the end of one to the start of the next;
 * so the next one's blocks are started while it still runs (programmatic dependent launch, CUDA programming guide), do what needs nothing of it - barriers,
 * weights - and wait for its end.
 *
 * A kernel that is launched by chain_launch must call chain_wait before it reads what another kernel wrote and before it writes to global memory, and each of its
 * blocks must before it ends: it may begin before those ahead of it have ended, and is taken for done when its blocks are. So when the wait
 * returns, all work issued earlier is done. Ordinary launches, copies and events stay ordered with chained kernels as with any.
 *
 * Where ops run beside others (replay.cu), "earlier" is: on the same stream, before it forked, and behind a join on both. The first kernel behind a fork may start
 * early on either stream, and the first one behind a join as soon as those ahead of it on both have let it: each waits for the ends of all of them, and a kernel
 * ends after its own wait, so whoever waits for it waits for what it waited for. */
#pragma once
#include "kernels/cuda/cuda_ctx.cuh"

/* The next kernel's blocks may take what this one leaves free: called once by all, as early as can be. */
__device__ __forceinline__ void chain_start_next()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Everything issued before this kernel is done, and its results can be read. */
__device__ __forceinline__ void chain_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* For a kernel that has nothing to do ahead. */
__device__ __forceinline__ void chain_enter()
{
    chain_start_next();
    chain_wait();
}

/* As kernel<<<grid, block, shared, c->stream>>>(args...), which starts early in recorded steps (replay.cu) and nowhere else; launched() tells of failures. */
template <typename... P, typename... A>
static inline void chain_launch(struct cuda_ctx *c, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, const A &...args)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t to = {};
    to.gridDim = grid;
    to.blockDim = block;
    to.dynamicSmemBytes = shared;
    to.stream = c->stream;
    to.attrs = &early;
    to.numAttrs = c->chained ? 1 : 0;
    cudaLaunchKernelEx(&to, kernel, P(args)...);
}
