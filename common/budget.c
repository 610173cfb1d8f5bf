/* See budget.h. */
#include "common/budget.h"

void budget_init(struct budget *b, size_t limit)
{
    atomic_store(&b->limit, limit);
    atomic_store(&b->used, 0);
}

static bool take(struct budget *b, size_t bytes)
{
    size_t used = atomic_load(&b->used);
    do {
        size_t limit = atomic_load(&b->limit);
        if (used > limit || bytes > limit - used)
            return false;
    } while (!atomic_compare_exchange_weak(&b->used, &used, used + bytes));
    return true;
}

bool charge_take(struct charge *c, size_t bytes)
{
    if (!c)
        return true;
    if (c->budget && !take(c->budget, bytes)) {
        c->refused = bytes > (size_t)-1 - c->taken ? (size_t)-1 : c->taken + bytes;
        return false;
    }
    c->taken += bytes;
    c->peak = c->taken > c->peak ? c->taken : c->peak;
    return true;
}

void charge_give(struct charge *c, size_t bytes)
{
    if (!c)
        return;
    if (c->budget)
        atomic_fetch_sub(&c->budget->used, bytes);
    c->taken -= bytes;
}

bool charge_change(struct charge *c, size_t was, size_t is)
{
    if (is > was)
        return charge_take(c, is - was);
    charge_give(c, was - is);
    return true;
}

void charge_done(struct charge *c)
{
    charge_give(c, c->taken);
}

int charge_error(const struct charge *c, struct err *err)
{
    size_t limit = atomic_load(&c->budget->limit);
    if (c->refused > limit)
        return err_set(
            err, ERR_TOO_LARGE,
            "the request needs over %zu MiB of memory, and all together may take %zu MiB (--request-memory); send fewer or shorter "
            "texts at once, or lower n, max_tokens or logprobs",
            c->refused >> 20, limit >> 20);
    return err_set(err, ERR_BUSY, "the request needs over %zu MiB of memory; requests under way hold %zu of %zu MiB (--request-memory)",
                   c->refused >> 20, atomic_load(&c->budget->used) >> 20, limit >> 20);
}
