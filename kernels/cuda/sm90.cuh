/* Hopper instructions that have no C++ form: mbarriers, tensor copies (TMA), and warpgroup matrix products (wgmma).
 *
 * Operands in shared memory are tiles of 64 (16-bit) columns, 128 bytes a row, in the 128-byte swizzle: the 16-byte chunk c of row r lies at
 * chunk c ^ (r % 8). A tile starts at a multiple of 1024 bytes. PTX ISA, "Asynchronous warpgroup level matrix instructions". */
#pragma once
#include "kernels/cuda/mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAVE_SM90 1
#else
#define HAVE_SM90 0
#endif

#if HAVE_SM90

/* ---- mbarriers: `bar` is a shared address ---- */
__device__ __forceinline__ void barrier_init(uint32_t bar, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(arrivals));
}
/* After the inits, before other threads and the copy engine use them. */
__device__ __forceinline__ void barrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t bar)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
/* Arrives, and announces bytes that copies will deliver in this phase. */
__device__ __forceinline__ void barrier_expect(uint32_t bar, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t bar, uint32_t parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "WAIT:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra DONE;\n"
                 "bra WAIT;\n"
                 "DONE:\n"
                 "}\n" ::"r"(bar),
                 "r"(parity)
                 : "memory");
}
/* Announces bytes only. */
__device__ __forceinline__ void barrier_add_bytes(uint32_t bar, int bytes)
{
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
/* Named barriers of `threads` threads; id 1..15. */
__device__ __forceinline__ void named_sync(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* ---- copies ---- */
/* The map's box at column x, row y into shared memory; delivers to `bar`. */
__device__ __forceinline__ void tma_load(uint32_t dst, const CUtensorMap *map, int x, int y, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(dst),
                 "l"(map), "r"(x), "r"(y), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void tma_load(uint32_t dst, const CUtensorMap *map, int x, int y, int z, uint32_t bar)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(dst),
                 "l"(map), "r"(x), "r"(y), "r"(z), "r"(bar)
                 : "memory");
}
/* This thread's ordinary writes to shared memory become visible to wgmma and TMA. */
__device__ __forceinline__ void proxy_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int N> __device__ __forceinline__ void registers_raise()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> __device__ __forceinline__ void registers_lower()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* ---- wgmma ---- */
__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int N> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* A tile whose rows are the product's rows or columns (K along the 128-byte rows). Advance K by 16: address + 32. */
__device__ __forceinline__ uint64_t tile_k_major(uint32_t address)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
/* A tile whose rows run along K and whose columns are the product's columns; columns 64.. lie `panel` bytes further.
 * Advance K by 16: address + 2048. */
__device__ __forceinline__ uint64_t tile_n_major(uint32_t address, int panel)
{
    return (uint64_t)((address & 0x3ffff) >> 4) | (uint64_t)(panel >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

/* d[64,N] = a b^T (+ d if `add`): 64 rows a warpgroup, N columns, 16 deep. A thread holds rows lane/4 and lane/4 + 8 of its warp's 16:
 * d[4j], d[4j+1] are columns 8j + 2(lane%4), +1 of the first, d[4j+2], d[4j+3] the same of the second. */
template <typename T, int N> struct wgmma;

#define F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define F16(i) F4(i), F4(i + 4), F4(i + 8), F4(i + 12)
#define F32(i) F16(i), F16(i + 16)
#define F64(i) F32(i), F32(i + 32)
#define D8 "%0,%1,%2,%3"
#define O8 F4(0)
#define D16 "%0,%1,%2,%3,%4,%5,%6,%7"
#define O16 F4(0), F4(4)
#define D24 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11"
#define O24 F4(0), F4(4), F4(8)
#define D32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define O32 F16(0)
#define D48 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23"
#define O48 F16(0), F4(16), F4(20)
#define D64                                                                                                  \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
    "%28,%29,%30,%31"
#define O64 F32(0)
#define D96                                                                                                  \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27," \
    "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define O96 F32(0), F16(32)
#define D128                                                                                                   \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"   \
    "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define O128 F64(0)
#define D160                                                                                                   \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"   \
    "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define O160 F64(0), F16(64)
#define D192                                                                                                   \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"   \
    "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53," \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79," \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define O192 F64(0), F32(64)
#define D256                                                                                                    \
    "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,"    \
    "%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,"  \
    "%54,%55,%56,%57,%58,%59,%60,%61,%62,%63,%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"  \
    "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104," \
    "%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125," \
    "%126,%127"
#define O256 F64(0), F64(64)

/* The operands after the N/2 accumulators: their numbers in the text. */
#define WGMMA(N, TYPE, NAME, A, B, P, A0, A1, A2, A3, BR, PR, M)                                                                          \
    template <> struct wgmma<TYPE, N> {                                                                                                   \
        __device__ __forceinline__ static void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int add)                                     \
        {                                                                                                                                 \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " P ", 0;\n"                                                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" D##N "}, " A ", " B ", p, 1, 1, 0, 0;\n}\n" \
                         : O##N                                                                                                           \
                         : "l"(a), "l"(b), "r"(add));                                                                                     \
        }                                                                                                                                 \
        /* a in registers: rows and columns as d's, 16 columns. */                                                                        \
        template <int B_N_MAJOR> __device__ __forceinline__ static void rs(float (&d)[N / 2], const uint32_t *a, uint64_t b, int add)     \
        {                                                                                                                                 \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " PR ", 0;\n"                                                                  \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " {" D##N "}, {" A0 ", " A1 ", " A2 ", " A3      \
                                                                                                   "}, " BR ", p, 1, 1, " M ";\n}\n"      \
                         : O##N                                                                                                           \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add), "n"(B_N_MAJOR));                                 \
        }                                                                                                                                 \
    };
WGMMA(8, __nv_bfloat16, "bf16", "%4", "%5", "%6", "%4", "%5", "%6", "%7", "%8", "%9", "%10")
WGMMA(8, __half, "f16", "%4", "%5", "%6", "%4", "%5", "%6", "%7", "%8", "%9", "%10")
WGMMA(16, __nv_bfloat16, "bf16", "%8", "%9", "%10", "%8", "%9", "%10", "%11", "%12", "%13", "%14")
WGMMA(16, __half, "f16", "%8", "%9", "%10", "%8", "%9", "%10", "%11", "%12", "%13", "%14")
WGMMA(24, __nv_bfloat16, "bf16", "%12", "%13", "%14", "%12", "%13", "%14", "%15", "%16", "%17", "%18")
WGMMA(24, __half, "f16", "%12", "%13", "%14", "%12", "%13", "%14", "%15", "%16", "%17", "%18")
WGMMA(32, __nv_bfloat16, "bf16", "%16", "%17", "%18", "%16", "%17", "%18", "%19", "%20", "%21", "%22")
WGMMA(32, __half, "f16", "%16", "%17", "%18", "%16", "%17", "%18", "%19", "%20", "%21", "%22")
WGMMA(48, __nv_bfloat16, "bf16", "%24", "%25", "%26", "%24", "%25", "%26", "%27", "%28", "%29", "%30")
WGMMA(48, __half, "f16", "%24", "%25", "%26", "%24", "%25", "%26", "%27", "%28", "%29", "%30")
WGMMA(64, __nv_bfloat16, "bf16", "%32", "%33", "%34", "%32", "%33", "%34", "%35", "%36", "%37", "%38")
WGMMA(64, __half, "f16", "%32", "%33", "%34", "%32", "%33", "%34", "%35", "%36", "%37", "%38")
WGMMA(96, __nv_bfloat16, "bf16", "%48", "%49", "%50", "%48", "%49", "%50", "%51", "%52", "%53", "%54")
WGMMA(96, __half, "f16", "%48", "%49", "%50", "%48", "%49", "%50", "%51", "%52", "%53", "%54")
WGMMA(128, __nv_bfloat16, "bf16", "%64", "%65", "%66", "%64", "%65", "%66", "%67", "%68", "%69", "%70")
WGMMA(128, __half, "f16", "%64", "%65", "%66", "%64", "%65", "%66", "%67", "%68", "%69", "%70")
WGMMA(160, __nv_bfloat16, "bf16", "%80", "%81", "%82", "%80", "%81", "%82", "%83", "%84", "%85", "%86")
WGMMA(160, __half, "f16", "%80", "%81", "%82", "%80", "%81", "%82", "%83", "%84", "%85", "%86")
WGMMA(192, __nv_bfloat16, "bf16", "%96", "%97", "%98", "%96", "%97", "%98", "%99", "%100", "%101", "%102")
WGMMA(192, __half, "f16", "%96", "%97", "%98", "%96", "%97", "%98", "%99", "%100", "%101", "%102")
WGMMA(256, __nv_bfloat16, "bf16", "%128", "%129", "%130", "%128", "%129", "%130", "%131", "%132", "%133", "%134")
WGMMA(256, __half, "f16", "%128", "%129", "%130", "%128", "%129", "%130", "%131", "%132", "%133", "%134")

#endif /* HAVE_SM90 */
