/* For the backends alone: the ordinary pointers behind the types of dev.h. An op converts its arguments once, where it is entered. */
#pragma once
#include "kernels/dev.h"

#if defined(__CUDACC__)
#define DEV_PTR_FN static __host__ __device__ __forceinline__
#else
#define DEV_PTR_FN static inline
#endif

struct kern_run;
struct kern_save;
struct kern_branch;

DEV_PTR_FN float *f32_of(const struct dev_f32 *p)
{
    return (float *)p;
}
DEV_PTR_FN void *act_of(const struct dev_act *p)
{
    return (void *)p;
}
DEV_PTR_FN int *i32_of(const struct dev_i32 *p)
{
    return (int *)p;
}
DEV_PTR_FN unsigned char *u8_of(const struct dev_u8 *p)
{
    return (unsigned char *)p;
}
DEV_PTR_FN struct kern_run *runs_of(const struct dev_runs *p)
{
    return (struct kern_run *)p;
}
DEV_PTR_FN struct kern_save *saves_of(const struct dev_saves *p)
{
    return (struct kern_save *)p;
}
DEV_PTR_FN struct kern_branch *branches_of(const struct dev_branches *p)
{
    return (struct kern_branch *)p;
}
DEV_PTR_FN void *bytes_of(const struct dev_bytes *p)
{
    return (void *)p;
}

/* The other way, for what a backend has allocated by itself. */
DEV_PTR_FN struct dev_bytes *to_dev(const void *p)
{
    return (struct dev_bytes *)p;
}
