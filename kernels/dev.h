/* Memory of a backend, by what it holds. These types are never completed, so the compiler refuses to read through them, to add to them, and to
 * take one for another or for host memory. Only kernels/ sees what is behind them (dev_ptr.h).
 *
 * The functions below take const as well and give back a pointer that may be assigned to either, as strchr does. */
#pragma once
#include <stddef.h>

struct dev_f32;      /* float */
struct dev_act;      /* the compute dtype */
struct dev_i32;      /* int */
struct dev_u8;       /* unsigned char */
struct dev_runs;     /* struct kern_run */
struct dev_saves;    /* struct kern_save */
struct dev_branches; /* struct kern_branch */
struct dev_bytes;    /* any of them: what is allocated, copied and freed */

/* A typed array as bytes. */
#define DEV_BYTES(p)                       \
    ((struct dev_bytes *)_Generic((p),     \
         struct dev_f32 *: (p),            \
         const struct dev_f32 *: (p),      \
         struct dev_act *: (p),            \
         const struct dev_act *: (p),      \
         struct dev_i32 *: (p),            \
         const struct dev_i32 *: (p),      \
         struct dev_u8 *: (p),             \
         const struct dev_u8 *: (p),       \
         struct dev_runs *: (p),           \
         const struct dev_runs *: (p),     \
         struct dev_saves *: (p),          \
         const struct dev_saves *: (p),    \
         struct dev_branches *: (p),       \
         const struct dev_branches *: (p), \
         struct dev_bytes *: (p),          \
         const struct dev_bytes *: (p)))

/* The array that starts `offset` bytes into p, a multiple of its element's size; NULL for NULL and 0. */
static inline struct dev_f32 *dev_f32_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_f32 *)((char *)p + offset);
}
static inline struct dev_act *dev_act_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_act *)((char *)p + offset);
}
static inline struct dev_i32 *dev_i32_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_i32 *)((char *)p + offset);
}
static inline struct dev_u8 *dev_u8_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_u8 *)((char *)p + offset);
}
static inline struct dev_runs *dev_runs_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_runs *)((char *)p + offset);
}
static inline struct dev_saves *dev_saves_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_saves *)((char *)p + offset);
}
static inline struct dev_branches *dev_branches_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_branches *)((char *)p + offset);
}
static inline struct dev_bytes *dev_bytes_in(const struct dev_bytes *p, size_t offset)
{
    return (struct dev_bytes *)((char *)p + offset);
}

/* The array from element i on. */
static inline struct dev_f32 *dev_f32_at(const struct dev_f32 *p, size_t i)
{
    return (struct dev_f32 *)((float *)p + i);
}
/* elements of `size` bytes */
static inline struct dev_act *dev_act_at(const struct dev_act *p, size_t i, size_t size)
{
    return (struct dev_act *)((char *)p + i * size);
}
static inline struct dev_i32 *dev_i32_at(const struct dev_i32 *p, size_t i)
{
    return (struct dev_i32 *)((int *)p + i);
}
static inline struct dev_u8 *dev_u8_at(const struct dev_u8 *p, size_t i)
{
    return (struct dev_u8 *)((unsigned char *)p + i);
}
