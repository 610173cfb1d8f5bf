/* CPU detection: instruction sets by cpuid, registers that the kernel saves by xgetbv, tiles by arch_prctl. */
#include "kernels/cpu/cpu_level.h"
#include "kernels/level.h"
#include <stdbool.h>
#include <stdint.h>

const char *const cpu_level_names[CPU_LEVEL_COUNT] = {"scalar", "avx2", "avx512", "avx512bf16", "amx"};

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    XCR0_AVX = 0x6,     /* XMM and YMM state */
    XCR0_AVX512 = 0xe6, /* and opmask, upper halves, upper registers */
    XCR0_AMX = 0x60000, /* tile configuration and tile data */
    PRCTL_REQ_XCOMP_PERM = 0x1023,
    XFEATURE_XTILEDATA = 18,
};

struct cpuid {
    uint32_t a, b, c, d;
};

static struct cpuid cpuid(uint32_t leaf, uint32_t sub)
{
    struct cpuid r = {0};
    __get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d);
    return r;
}

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool all_set(uint64_t value, uint64_t mask)
{
    return (value & mask) == mask;
}

bool cpu_has_fma(void)
{
    const uint32_t fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28;
    return all_set(cpuid(1, 0).c, fma | osxsave | avx) && all_set(xcr0(), XCR0_AVX);
}

enum cpu_level cpu_level_detect(void)
{
    struct cpuid one = cpuid(1, 0), seven = cpuid(7, 0), seven1 = seven.a >= 1 ? cpuid(7, 1) : (struct cpuid){0};
    if (!cpu_has_fma() || !(one.c & 1u << 29) /* F16C */ || !(seven.b & 1u << 5))
        return CPU_SCALAR;
    uint64_t saved = xcr0();
    const uint32_t avx512 = 1u << 16 /* F */ | 1u << 17 /* DQ */ | 1u << 30 /* BW */ | 1u << 31 /* VL */;
    if (!all_set(saved, XCR0_AVX512) || !all_set(seven.b, avx512))
        return CPU_AVX2;
    if (!(seven1.a & 1u << 5))
        return CPU_AVX512;
    const uint32_t amx = 1u << 22 /* BF16 */ | 1u << 24 /* TILE */;
    if (!all_set(saved, XCR0_AMX) || !all_set(seven.d, amx) || syscall(SYS_arch_prctl, PRCTL_REQ_XCOMP_PERM, XFEATURE_XTILEDATA))
        return CPU_AVX512BF16;
    return CPU_AMX;
}
#else
bool cpu_has_fma(void)
{
    return false;
}

enum cpu_level cpu_level_detect(void)
{
    return CPU_SCALAR;
}
#endif

int cpu_level_parse(const char *name, enum cpu_level *ret, struct err *err)
{
    int l, r = level_parse("cpu_level", "machine", cpu_level_names, CPU_LEVEL_COUNT, cpu_level_detect(), name, &l, err);
    if (r >= 0)
        *ret = l;
    return r;
}
