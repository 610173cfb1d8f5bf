/* What this CPU and its kernel can run, as one ordered level. A level includes those below it. */
#pragma once
#include "common/err.h"
#include <stdbool.h>

enum cpu_level {
    CPU_SCALAR,     /* plain C, no more than the compiler's baseline and fused multiply-adds */
    CPU_AVX2,       /* AVX2, FMA, F16C */
    CPU_AVX512,     /* AVX-512 F, BW, DQ, VL */
    CPU_AVX512BF16, /* and AVX512_BF16 */
    CPU_AMX,        /* and AMX-TILE, AMX-BF16, with the kernel's leave to use tile registers */
    CPU_LEVEL_COUNT
};

/* The CPU has fused multiply-adds, and its kernel saves their registers: level scalar takes them then, with the same bits. */
bool cpu_has_fma(void);
/* The highest level that works here. The first call asks the kernel for the tile registers. */
enum cpu_level cpu_level_detect(void);
extern const char *const cpu_level_names[CPU_LEVEL_COUNT]; /* "scalar", "avx2", "avx512", "avx512bf16", "amx" */
/* NULL: what the machine has. ERR_INVALID for an unknown name, ERR_UNSUPPORTED for a level above the machine's. */
int cpu_level_parse(const char *name, enum cpu_level *ret, struct err *err);
