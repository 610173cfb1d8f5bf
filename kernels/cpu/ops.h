/* What each op file of kernels/cpu gives to the table: functions that fill the slots of that file.
 *
 * The files listed in portable.c are plain C, compiled once for every level below with that level's instructions. Nothing may be
 * reordered or contracted, so all of these builds give the same bits; they differ in speed alone. */
#pragma once
#include "kernels/cpu/cpu.h"

#ifndef CPU_SUFFIX
#define CPU_SUFFIX c
#endif
#define CPU_PASTE(name, suffix) name##_##suffix
#define CPU_EXPAND(name, suffix) CPU_PASTE(name, suffix)
/* A function's name in the build at hand: rmsnorm_init_c, rmsnorm_init_avx2, ... */
#define CPU_NAME(name) CPU_EXPAND(name, CPU_SUFFIX)

void CPU_NAME(rmsnorm_init)(struct kern_ops *o);
void CPU_NAME(route_init)(struct kern_ops *o);
void CPU_NAME(rope_init)(struct kern_ops *o);
void CPU_NAME(attention_init)(struct kern_ops *o);
void CPU_NAME(gates_init)(struct kern_ops *o);
void CPU_NAME(logprob_init)(struct kern_ops *o);
void CPU_NAME(mamba_init)(struct kern_ops *o); /* route_mamba */

struct mamba_block;
void CPU_NAME(mamba_scan)(struct mamba_block *b);
cpu_chain CPU_NAME(matmul_chain);

/* All of the above, by level: plain C, and on x86-64 plain C with the fused multiply-add of the CPU, with AVX2, or with AVX-512. */
void portable_init_c(struct kern_ops *o);
void portable_init_fma(struct kern_ops *o);
cpu_chain matmul_chain_c, matmul_chain_fma;
void portable_init_avx2(struct kern_ops *o);
void portable_init_avx512(struct kern_ops *o);

void place_init(struct kern_ops *o);
void branch_init(struct kern_ops *o);
void select_init(struct kern_ops *o);
void mamba_weights_init(struct kern_ops *o);
void matrix_init(struct kern_ops *o); /* matrix_new, matrix_free, matrix_bytes, embed */
void matmul_init(struct kern_ops *o);
