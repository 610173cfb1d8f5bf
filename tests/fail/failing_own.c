/* See failing_own.h. */
#include "tests/fail/failing_own.h"
#include "common/arena.h"
#include "common/budget.h"
#include "common/buf.h"
#include "common/err.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define PLACES 4096     /* a power of two, more than there are */
#define CALLS_A_PLACE 2 /* that count */

struct place {
    uintptr_t at;
    int calls;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below */
static long until_failure = -1;
static const char *failed;
static struct place places[PLACES];

void failing_own_plan(long n)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < PLACES; i++)
        places[i] = (struct place){0};
    failed = NULL;
    until_failure = n;
    pthread_mutex_unlock(&lock);
}

const char *failing_own_reached(void)
{
    pthread_mutex_lock(&lock);
    until_failure = -1;
    const char *name = failed;
    pthread_mutex_unlock(&lock);
    return name;
}

static bool counts(uintptr_t at)
{
    size_t i = (at ^ at >> 12) % PLACES;
    while (places[i].at && places[i].at != at)
        i = (i + 1) % PLACES;
    places[i].at = at;
    return places[i].calls++ < CALLS_A_PLACE;
}

bool failing_own_refuses(const char *name, const void *at)
{
    pthread_mutex_lock(&lock);
    bool no = until_failure >= 0 && counts((uintptr_t)at) && until_failure-- == 0;
    if (no)
        failed = name;
    pthread_mutex_unlock(&lock);
    return no;
}

/* WRAP(type, name, failure, (parameters), (arguments)) */
#define WRAP(type, name, failure, parameters, arguments)                                                      \
    type __real_##name parameters;                                                                            \
    type __wrap_##name parameters;                                                                            \
    type __wrap_##name parameters                                                                             \
    {                                                                                                         \
        return failing_own_refuses(#name, __builtin_return_address(0)) ? (failure) : __real_##name arguments; \
    }

WRAP(void *, arena_alloc, NULL, (struct arena * a, size_t n, size_t size), (a, n, size))
WRAP(char *, arena_strndup, NULL, (struct arena * a, const char *s, size_t n), (a, s, n))
WRAP(int, buf_reserve, ERR_NOMEM, (struct buf * b, size_t n), (b, n))
WRAP(int, buf_append, ERR_NOMEM, (struct buf * b, const void *bytes, size_t n), (b, bytes, n))
WRAP(int, buf_puts, ERR_NOMEM, (struct buf * b, const char *s), (b, s))

/* It allocates for an empty one alone. */
char *__real_buf_take(struct buf *b, size_t *ret_len);
char *__wrap_buf_take(struct buf *b, size_t *ret_len);
char *__wrap_buf_take(struct buf *b, size_t *ret_len)
{
    return !b->cap_bytes && failing_own_refuses("buf_take", __builtin_return_address(0)) ? NULL : __real_buf_take(b, ret_len);
}

void __real_free(void *p);
int __wrap_buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int __wrap_buf_printf(struct buf *b, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    if (failing_own_refuses("buf_printf", __builtin_return_address(0)))
        return ERR_NOMEM;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args), r = n < 0 ? ERR_NOMEM : __real_buf_append(b, text, (size_t)n);
    va_end(args);
    __real_free(n < 0 ? NULL : text); /* failing.h has not seen it allocated */
    return r;
}

/* Without a budget there is nothing that could be exceeded. */
bool __real_charge_take(struct charge *c, size_t bytes);
bool __wrap_charge_take(struct charge *c, size_t bytes);
bool __wrap_charge_take(struct charge *c, size_t bytes)
{
    if (!c || !c->budget || !failing_own_refuses("charge_take", __builtin_return_address(0)))
        return __real_charge_take(c, bytes);
    c->refused = c->taken + bytes;
    return false;
}
