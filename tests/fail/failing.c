/* See failing.h. */
#include "tests/fail/failing.h"
#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static atomic_long until_failure = -1; /* allocations that still succeed; negative: no failure is planned */
static atomic_long live;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
char *__wrap_strdup(const char *s);
void __wrap_free(void *p);

static atomic_bool spares_jansson;

/* The function that allocates for jansson is in common/json.c, and small. */
static bool for_jansson(const void *at)
{
    json_malloc_t allocate;
    json_free_t release;
    json_get_alloc_funcs(&allocate, &release);
    return (uintptr_t)at - (uintptr_t)allocate < 128;
}

static bool refused(const void *at)
{
    if (atomic_load(&spares_jansson) && for_jansson(at))
        return false;
    return atomic_load(&until_failure) >= 0 && atomic_fetch_sub(&until_failure, 1) == 0;
}

static void *counted(void *p)
{
    if (p)
        live++;
    return p;
}

void *__wrap_malloc(size_t n)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__real_malloc(n));
}
void *__wrap_calloc(size_t n, size_t size)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__real_calloc(n, size));
}
void *__wrap_aligned_alloc(size_t align, size_t n)
{
    return refused(__builtin_return_address(0)) ? NULL : counted(__real_aligned_alloc(align, n));
}

char *__wrap_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = __wrap_malloc(n);
    return copy ? memcpy(copy, s, n) : NULL;
}

void *__wrap_realloc(void *p, size_t n)
{
    if (refused(__builtin_return_address(0)))
        return NULL;
    void *q = __real_realloc(p, n);
    return p ? q : counted(q);
}

void __wrap_free(void *p)
{
    if (p)
        live--;
    __real_free(p);
}

void failing_init(void)
{
    json_set_alloc_funcs(malloc, free);
}

void failing_plan(long n)
{
    atomic_store(&until_failure, n);
}

void failing_spare_jansson(void)
{
    atomic_store(&spares_jansson, true);
}

bool failing_reached(void)
{
    return atomic_exchange(&until_failure, -1) < 0;
}

long failing_live(void)
{
    return atomic_load(&live);
}
