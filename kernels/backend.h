/* Backends by name: opening one, its memory, and copies to and from it.
 *
 * A process may have several contexts, of one device or of many. Calls on one context come from one thread at a time, which need not
 * always be the same. Copies are ordered with the ops of kernels.h. */
#pragma once
#include "common/log.h"
#include "kernels/kernels.h"

/* Of float32: HIGHEST is the class portable-1 (docs/portable-float32.md), the same bits on every machine; HIGH lets matrix units take products in
 * terms of 16 bits, a class of the device's own. 16-bit dtypes are not concerned. */
enum matmul_precision { MATMUL_HIGHEST, MATMUL_HIGH };

struct backend_config {
    enum dtype dtype; /* compute dtype */
    enum matmul_precision precision;
    int device_index;       /* which device of the kind, from 0 */
    int n_threads;          /* CPU: threads that compute, >= 1 */
    const char *cpu_level;  /* CPU: highest of its levels to use (struct backend_limits); NULL: the highest that the machine has */
    const char *cpu_matmul; /* CPU, for tests and comparisons: who multiplies ("panel", "scalar"); NULL: the best that there is */
    const char *cuda_level; /* CUDA: likewise; NULL: the highest that the device has */
    struct log *log;        /* borrowed; NULL: silent */
};

#define BACKEND_CPU_DEVICES \
    16 /* the CPU can be opened under so many numbers, to have on any machine what several devices have: for tests */
#define BACKEND_MARKS 4
#define BACKEND_STAMPS 2048

struct backend_memory {
    size_t total_bytes, free_bytes;
};

/* What an opened device is like. Those above kernels/ go by these fields, and name a device only to open it. */
struct backend_limits {
    int step_rows;       /* rows that a step should hold if nobody says otherwise */
    int few_rows;        /* a product of so many rows of a step takes as long as one of some of them: it reads all weights; 0: none does */
    int gather_rows;     /* from so many rows of a step on, gathers of one half of them should go beside what is computed of the other */
    int steps_in_flight; /* steps to issue before the first is waited for; 1 where an op is done when it returns */
    bool host_memory;    /* its memory is the host's own; copies to memory of alloc_host are then no faster than others */
    const char *const *levels; /* [n_levels] names of the levels of this kind of device, lowest first; a level includes those below it */
    int n_levels, level;       /* level: index of the highest in use */
};

struct backend;

/* An opened backend. `ops` is complete but for what kernels.h calls optional. */
struct kern_ctx {
    const struct kern_ops *ops;
    const struct backend *backend;
    enum dtype act; /* the compute dtype */
    struct backend_limits limits;
    void *impl;             /* the backend's own state */
    struct op_times *times; /* op_times.h; NULL: no step is being sampled */
};

struct backend {
    const char *name;                /* what `--device` calls it: "cpu", "cuda" */
    int (*present)(struct err *err); /* device 0 of this kind can be opened; else ERR_UNSUPPORTED: not built, ERR_DEVICE: why not */
    /* How many devices of this kind there are, numbered from 0; once it is present. *ret_numbers: how many numbers can be opened, more than devices
     * where several contexts of one can stand for several devices. */
    int (*count)(int *ret_numbers);
    /* The dtype that `auto` means for weights stored as `stored`: that one where the device is fast at it, else f32. */
    enum dtype (*auto_dtype)(enum dtype stored);
    /* What takes long when a device is opened for the first time: may run in a thread of its own before that. Failures are open's to tell. NULL: nothing does. */
    void (*wake)(int device_index);
    int (*open)(const struct backend_config *c, struct kern_ctx **ret, struct err *err);
    void (*close)(struct kern_ctx *k); /* NULL is valid; everything allocated must be freed before */
    /* From now on k's ops may be given what `from` was given to hold weights (alloc, matrix_new, mamba_new), as long as `from` is open; neither
     * changes it. ERR_UNSUPPORTED: they have no memory in common, or compute differently. NULL: never. */
    int (*share)(struct kern_ctx *k, const struct kern_ctx *from);

    struct dev_bytes *(*alloc)(struct kern_ctx *k, size_t bytes); /* 64-byte aligned, uninitialised; NULL: no memory */
    void (*free)(struct kern_ctx *k, struct dev_bytes *p);        /* NULL is valid */
    /* src may be reused when upload returns; dst of download may be read after the next sync. */
    int (*upload)(struct kern_ctx *k, struct dev_bytes *dst, const void *src, size_t bytes);
    int (*download)(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes);
    /* From another context of the backend, whose src must be ready: sync it before; dst is ready after k's next sync. NULL where contexts share
     * memory. */
    int (*copy)(struct kern_ctx *k, struct dev_bytes *dst, struct kern_ctx *from, const struct dev_bytes *src, size_t bytes);
    int (*sync)(struct kern_ctx *k, struct err *err);
    /* Collectives: contexts that compute one model together, each a part of it, are a group of ranks. Each rank is called from a thread of its own, and all
     * of them make the same calls in the same order. group_open: of n contexts of the backend, rank i being ranks[i]; ERR_UNSUPPORTED says why not. A
     * rank that fails says so with group_fail: others do not wait for it, and their calls fail. group_close: once no call is under way, before close. */
    int (*group_open)(struct kern_ctx *const *ranks, int n, struct err *err);
    void (*group_fail)(struct kern_ctx *k);
    void (*group_close)(struct kern_ctx *const *ranks, int n); /* nothing where there is no group */
    /* For each of `rows` rows: dst gets the `bytes` bytes of every rank's src side by side, rank 0's first. Rows of dst are n * bytes apart. The copying may go
     * on beside what is issued next: what reads dst or writes src comes after await_gathers, by which the rank waits for all of its gathers but the newest
     * `but`, 0 or 1. No more than two are ever under way. */
    int (*all_gather)(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t bytes, int rows);
    int (*await_gathers)(struct kern_ctx *k, int but);
    /* `bytes` bytes of each row of src, from byte `first` on; rows of src are ld bytes apart, those of dst `bytes`. No other rank takes part. */
    int (*take_columns)(struct kern_ctx *k, struct dev_bytes *dst, const struct dev_bytes *src, size_t first, size_t bytes, size_t ld,
                        int rows);
    /* Copies that the device makes while the host goes on. fetch's dst is memory of alloc_host, and may be read once wait has returned 0 for
     * a mark that was set after the fetch. mark notes how far the queue has come, under a number from 0 to BACKEND_MARKS - 1; wait returns when
     * everything before the mark's latest setting is done, and says as sync does when the device has failed. */
    void *(*alloc_host)(struct kern_ctx *k, size_t bytes); /* as alloc, and freed by free_host before close */
    void (*free_host)(struct kern_ctx *k, void *p);
    /* What lies in this part of memory of alloc_host is of no use any more: the machine may have its pages until it is written again. NULL: they cannot
     * be given. */
    void (*give_host)(struct kern_ctx *k, void *p, size_t bytes);
    int (*fetch)(struct kern_ctx *k, void *dst, const struct dev_bytes *src, size_t bytes);
    int (*mark)(struct kern_ctx *k, int i);
    int (*wait)(struct kern_ctx *k, int i, struct err *err);
    /* stamp notes the time at which what was issued before it is done, under a number from 0 to BACKEND_STAMPS - 1; stamp_seconds: from stamp a to
     * b, negative as long as b is to come. */
    int (*stamp)(struct kern_ctx *k, int i);
    double (*stamp_seconds)(struct kern_ctx *k, int a, int b);
    int (*memory)(struct kern_ctx *k, struct backend_memory *ret);
    /* What decides the bits of a result beside the dtype ("portable-1", "cpu avx2", "cuda sm_90 bf16 wgmma"), for /version. */
    const char *(*numerics_class)(struct kern_ctx *k);
};

/* To be called before a backend is looked for where contexts will be opened as a group. */
void backend_expect_group(void);
/* "cpu", "cuda" or "auto" (the first present of cuda, cpu). ERR_INVALID for another name, ERR_UNSUPPORTED for a backend
 * that this build lacks, ERR_DEVICE for one without a device. */
int backend_find(const char *name, const struct backend **ret, struct err *err);
