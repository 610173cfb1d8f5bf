/* The CPU backend: its table, memory and life. Memory is plain memory, ops are done when they return, so sync has nothing to wait for. */
#include "kernels/cpu/backend_cpu.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/group.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/mamba.h"
#include "kernels/cpu/matrix.h"
#include "kernels/cpu/ops.h"
#include "kernels/portable.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int present(struct err *err)
{
    return 0;
}

static enum dtype auto_dtype(enum dtype stored)
{
    return stored == DTYPE_BF16 && cpu_level_detect() >= CPU_AVX512BF16 ? DTYPE_BF16 : DTYPE_F32;
}

/* Plain C first, so the table is always complete; then each level overrides what it does better, lowest level first. */
static void fill_table(struct kern_ops *o, enum cpu_level level)
{
    portable_init_c(o);
#if defined(__x86_64__)
    if (cpu_has_fma())
        portable_init_fma(o);
#endif
    place_init(o);
    branch_init(o);
    select_init(o);
    mamba_weights_init(o);
    matrix_init(o);
    matmul_init(o);
#if defined(__x86_64__)
    if (level >= CPU_AVX2)
        portable_init_avx2(o);
    if (level >= CPU_AVX512)
        portable_init_avx512(o);
    if (level >= CPU_AVX2)
        attention_blocked_init(o);
#endif
}

static int make_state(struct cpu *c)
{
    int r = cpu_matmul_new(c);
#if defined(__x86_64__)
    if (r >= 0 && c->level >= CPU_AVX2)
        r = attention_blocked_new(c);
#endif
    return r;
}

static void close_cpu(struct kern_ctx *k)
{
    if (!k)
        return;
    struct cpu *c = cpu_of(k);
#if defined(__x86_64__)
    attention_blocked_free(c);
#endif
    cpu_matmul_free(c);
    free(c->mamba.memory);
    thread_pool_free(c->pool);
    free(c);
}

static int check_config(const struct backend_config *c, struct err *err)
{
    if (c->device_index < 0 || c->device_index >= BACKEND_CPU_DEVICES)
        return err_field(err, ERR_INVALID, "device", "there is no cpu device %d: the cpu is one device, which has the numbers 0 to %d",
                         c->device_index, BACKEND_CPU_DEVICES - 1);
    if (c->dtype == DTYPE_F16)
        return err_field(err, ERR_UNSUPPORTED, "dtype", "dtype f16 needs the cuda backend; the cpu computes in f32 or bf16");
    if (c->n_threads < 1 || c->n_threads > CPU_MAX_THREADS)
        return err_field(err, ERR_INVALID, "threads", "threads must be 1..%d, not %d", CPU_MAX_THREADS, c->n_threads);
    return 0;
}

/* In float32 all levels have the same bits, but where AMX takes products in terms. */
static void name_class(struct cpu *c, const struct backend_config *config)
{
    const char *level = cpu_level_names[c->level];
    if (c->base.act == DTYPE_F32 && !(c->split && c->level >= CPU_AMX))
        snprintf(c->numerics, sizeof(c->numerics), "%s", PORTABLE_CLASS);
    else
        snprintf(c->numerics, sizeof(c->numerics), "cpu %s%s%s", level, c->only ? " " : "", c->only ? config->cpu_matmul : "");
}

static int open_cpu(const struct backend_config *config, struct kern_ctx **ret, struct err *err)
{
    enum cpu_level level;
    int r = check_config(config, err);
    if (r >= 0)
        r = cpu_level_parse(config->cpu_level, &level, err);
    if (r < 0)
        return r;
    struct cpu *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(err, ERR_NOMEM, "out of memory for the cpu backend");
    c->base = (struct kern_ctx){.ops = &c->ops, .backend = backend_cpu(), .act = config->dtype, .impl = c};
    c->base.limits = (struct backend_limits){.step_rows = 512,
                                             .gather_rows = 2, /* it saves nothing here, and tests see it */
                                             .steps_in_flight = 1,
                                             .host_memory = true,
                                             .levels = cpu_level_names,
                                             .n_levels = CPU_LEVEL_COUNT,
                                             .level = level};
    c->level = level;
    c->split = config->dtype != DTYPE_F32 || config->precision == MATMUL_HIGH;
    c->chain = matmul_chain_c;
#if defined(__x86_64__)
    c->chain = cpu_has_fma() ? matmul_chain_fma : matmul_chain_c;
#endif
    c->n_threads = config->n_threads;
    c->log = config->log;
    fill_table(&c->ops, level);
    r = matrix_ops_find(config->cpu_matmul, &c->only, err);
    if (r >= 0)
        r = thread_pool_new(c->n_threads, NULL, &c->pool, err);
    if (r >= 0 && (r = make_state(c)) < 0)
        err_set(err, r, "out of memory for the cpu backend's scratch");
    if (r < 0) {
        close_cpu(&c->base);
        return r;
    }
    name_class(c, config);
    *ret = &c->base;
    return 0;
}

static int count(int *ret_numbers)
{
    *ret_numbers = BACKEND_CPU_DEVICES;
    return 1;
}

/* Weights are only read; scratch is a context's own. */
static int share_cpu(struct kern_ctx *k, const struct kern_ctx *from)
{
    struct cpu *c = cpu_of(k);
    const struct cpu *f = from->impl;
    if (k->backend != from->backend || k->act != from->act || c->level != f->level || c->n_threads != f->n_threads || c->only != f->only ||
        c->split != f->split)
        return ERR_UNSUPPORTED;
    int r = cpu_matmul_reserve_as(c, f->matmul);
    return r < 0 ? r : mamba_reserve_as(c, f);
}

static void *alloc_host_cpu(struct kern_ctx *k, size_t bytes)
{
    return bytes > SIZE_MAX - 64 ? NULL : aligned_alloc(64, bytes ? (bytes + 63) / 64 * 64 : 64);
}

static void free_host_cpu(struct kern_ctx *k, void *p)
{
    free(p);
}

/* Whole pages. Should the system not take them, they stay. */
static void give_host_cpu(struct kern_ctx *k, void *p, size_t bytes)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), end = ((uintptr_t)p + bytes) & ~(page - 1);
    uintptr_t begin = ((uintptr_t)p + page - 1) & ~(page - 1);
    if (begin < end)
        madvise((char *)p + (begin - (uintptr_t)p), end - begin, MADV_DONTNEED);
}

static struct dev_bytes *alloc_cpu(struct kern_ctx *k, size_t bytes)
{
    return alloc_host_cpu(k, bytes);
}

static void free_cpu(struct kern_ctx *k, struct dev_bytes *p)
{
    free(bytes_of(p));
}

static int upload_cpu(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes)
{
    if (bytes)
        memcpy(bytes_of(dst), src, bytes);
    return 0;
}

static int download_cpu(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes)
{
    if (bytes)
        memcpy(dst, bytes_of(src), bytes);
    return 0;
}

static int sync_cpu(struct kern_ctx *k, struct err *err)
{
    return 0;
}
static int mark_cpu(struct kern_ctx *k, int i)
{
    return 0;
}
static int wait_cpu(struct kern_ctx *k, int i, struct err *err)
{
    return 0;
}

static int stamp_cpu(struct kern_ctx *k, int i)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    cpu_of(k)->stamps[i] = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    return 0;
}

static double stamp_seconds_cpu(struct kern_ctx *k, int a, int b)
{
    return cpu_of(k)->stamps[b] - cpu_of(k)->stamps[a];
}

static int memory(struct kern_ctx *k, struct backend_memory *ret)
{
    return host_memory(ret);
}
static const char *numerics_class(struct kern_ctx *k)
{
    return cpu_of(k)->numerics;
}

const struct backend *backend_cpu(void)
{
    static const struct backend cpu = {
        .name = "cpu",
        .present = present,
        .auto_dtype = auto_dtype,
        .open = open_cpu,
        .close = close_cpu,
        .count = count,
        .share = share_cpu,
        .alloc = alloc_cpu,
        .free = free_cpu,
        .upload = upload_cpu,
        .download = download_cpu,
        .sync = sync_cpu,
        .group_open = cpu_group_open,
        .group_fail = cpu_group_fail,
        .group_close = cpu_group_close,
        .all_gather = cpu_all_gather,
        .await_gathers = cpu_await_gathers,
        .take_columns = cpu_take_columns,
        .alloc_host = alloc_host_cpu,
        .free_host = free_host_cpu,
        .give_host = give_host_cpu,
        .fetch = download_cpu,
        .mark = mark_cpu,
        .wait = wait_cpu,
        .stamp = stamp_cpu,
        .stamp_seconds = stamp_seconds_cpu,
        .memory = memory,
        .numerics_class = numerics_class,
    };
    return &cpu;
}
